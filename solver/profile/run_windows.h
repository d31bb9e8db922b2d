// Runs calibration windows through a fleet, for what its capture keeps of them.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "coordinator/engine/stepper.h"
#include "solver/profile/calibration.h"

namespace thermocline {

// Each window from position 0 on, in steps of the fleet's batch; no logits. `go_on` is called
// after each step with the tokens run so far; false: Cancelled.
absl::Status RunWindows(const Calibration& calibration, Stepper* fleet,
                        const std::function<bool(int64_t)>& go_on);

}  // namespace thermocline
