// Which ISA levels this machine runs, and their tables. Built without ISA flags.
#include <cpuid.h>

#include "kernels/levels.h"
#include "kernels/ops.h"

namespace thermocline::kernels {
namespace {

#define THERMOCLINE_OPS(level)                                                                    \
  Ops {                                                                                           \
#level, level::quantize, level::matmul_int8, level::matmul_f32, level::rows_int8,             \
        level::rows_f32, level::sketch_int8, level::add_rows, level::add_blocks, level::rms_norm, \
        level::rope_interleaved, level::relu_mul, level::silu_mul, level::add, level::f32_to_f16, \
        level::attend_tiles, level::attend_merge, level::attend_finish, level::read_sum           \
  }
constexpr Ops kReferenceOps = THERMOCLINE_OPS(reference);
constexpr Ops kAvx2Ops = THERMOCLINE_OPS(avx2);
constexpr Ops kAvx512Ops = THERMOCLINE_OPS(avx512);
#undef THERMOCLINE_OPS

// clang 14's __builtin_cpu_supports does not know F16C.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

// __builtin_cpu_supports reads cpuid and, through XGETBV, whether the OS saves the wide registers.
bool isa_supported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::kAvx512:
      return isa_supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

Isa detect_isa() {
  if (isa_supported(Isa::kAvx512)) return Isa::kAvx512;
  if (isa_supported(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kReference;
}

const Ops& ops(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return kAvx512Ops;
    case Isa::kAvx2:
      return kAvx2Ops;
    case Isa::kReference:
      break;
  }
  return kReferenceOps;
}

}  // namespace thermocline::kernels
