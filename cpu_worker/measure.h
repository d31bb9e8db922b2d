// Plain read bandwidth of a team's threads: what decode speeds are compared with.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "cpu_worker/team.h"
#include "kernels/ops.h"

namespace thermocline {

// Reads a buffer of this size `repeats` times with the widest loads, each thread its own part,
// which it has written first. One figure a repeat, 1e9 bytes a second.
absl::StatusOr<std::vector<double>> MeasureReadGbps(Team& team, const kernels::Ops& ops,
                                                    int64_t buffer_bytes, int32_t repeats);

}  // namespace thermocline
