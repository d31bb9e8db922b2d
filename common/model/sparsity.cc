// The names of the sparsity modes.
#include "common/model/sparsity.h"

#include <iterator>

#include "fmt/format.h"

namespace thermocline {
namespace {
constexpr const char* kNames[] = {"off", "exact", "predict", "sketch", "threshold"};
}

absl::StatusOr<Sparsity> ParseSparsity(const std::string& name) {
  for (uint8_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<Sparsity>(i);
  }
  return absl::InvalidArgumentError(
      fmt::format("sparsity \"{}\" is none of off, exact, predict, sketch, threshold", name));
}

const char* SparsityName(Sparsity mode) { return kNames[static_cast<uint8_t>(mode)]; }

}  // namespace thermocline
