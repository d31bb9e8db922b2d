// The ISA levels by the names of --isa.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace thermocline {

// "auto" is the best level of this machine. Unimplemented for one that it lacks.
absl::StatusOr<kernels::Isa> IsaFromName(const std::string& name);

}  // namespace thermocline
