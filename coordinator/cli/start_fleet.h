// Starts a fleet for a program: progress bar, one line that says what runs, and its plan if
// the user wants to know more.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "coordinator/cli/fleet_flags.h"
#include "coordinator/cli/program.h"
#include "coordinator/engine/fleet.h"

namespace thermocline {

// "off", "sketch (1 to 2 bits)", or "exact and sketch (1 bit)" when layers differ.
std::string DescribeModes(const Plan& plan);

// Cancelled when a signal came meanwhile. The program must outlive the fleet.
absl::StatusOr<std::unique_ptr<Fleet>> StartFleet(const Program& program,
                                                  const FleetOptions& options);

}  // namespace thermocline
