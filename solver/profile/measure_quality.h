// How far the modes of a folder being made are from mode off, on text that was set aside.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/engine/fleet.h"
#include "solver/profile/calibration.h"

namespace thermocline {

// Starts a fleet in the mode of options.sparsity and runs each window twice in it, in mode off and
// as the fleet is planned, each in a slot of its own. Returns the mean KL divergence, in nats.
// `go_on` is called after each step with the share of the work that is done; false: Cancelled.
absl::StatusOr<double> MeasureKl(FleetOptions options, const std::vector<Window>& windows,
                                 const std::atomic<bool>* cancelled,
                                 const std::function<bool(double)>& go_on);

}  // namespace thermocline
