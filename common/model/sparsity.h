// The modes of --sparsity: which neurons of an FFN a step leaves out. README.md, "Sparsity", says
// what each costs and keeps.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace thermocline {

enum class Sparsity : uint8_t {
  kOff,        // none
  kExact,      // those whose activation is 0: up and down only
  kPredict,    // those that the predictor rules out, then as kExact
  kSketch,     // those whose gate stays small in its top bits, then as kExact
  kThreshold,  // those whose gate's magnitude stays under a threshold: up and down only
};

inline constexpr int kMaxSketchBits = 3;

// "off", "exact", ...; InvalidArgument names the known ones.
absl::StatusOr<Sparsity> ParseSparsity(const std::string& name);
const char* SparsityName(Sparsity mode);

}  // namespace thermocline
