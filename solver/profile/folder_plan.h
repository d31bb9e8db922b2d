// The plan.json of a predictor folder: what the planner makes of its profile and predictor for the
// machine that solve was told of.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "solver/profile/solve_options.h"

namespace thermocline {

// folder: with profile.gguf, and predictor.gguf if there is one; plan.json is added. A GPU of which
// only the memory is known is taken to be as fast as common cards of that size (AssumedGpu). Errors
// of the planner: memory that does not suffice, above all.
absl::Status WriteFolderPlan(const SolveOptions& options, const std::string& folder);

// A GPU with so much memory as --hardware would describe it.
std::string AssumedGpu(double memory_gib);

}  // namespace thermocline
