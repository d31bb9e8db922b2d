// Names against what this machine runs.
#include "cpu_worker/isa_name.h"

#include "fmt/format.h"

namespace thermocline {

absl::StatusOr<kernels::Isa> IsaFromName(const std::string& name) {
  if (name == "auto") return kernels::detect_isa();
  for (const kernels::Isa isa :
       {kernels::Isa::kReference, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
    if (name != kernels::ops(isa).name) continue;
    if (!kernels::isa_supported(isa)) {
      return absl::UnimplementedError(
          fmt::format("this machine does not run --isa {}; auto picks {}", name,
                      kernels::ops(kernels::detect_isa()).name));
    }
    return isa;
  }
  return absl::InvalidArgumentError(
      fmt::format("isa \"{}\" is none of auto, reference, avx2, avx512", name));
}

}  // namespace thermocline
