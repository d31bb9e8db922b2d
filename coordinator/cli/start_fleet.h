// Starts a fleet for a program: progress bar, notes, and one line that says what runs.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cli/fleet_flags.h"
#include "coordinator/cli/program.h"
#include "coordinator/engine/fleet.h"

namespace thermocline {

// Cancelled when a signal came meanwhile.
absl::StatusOr<std::unique_ptr<Fleet>> StartFleet(const Program& program,
                                                  const FleetOptions& options);
// Says that layers asked for on a GPU are computed on the CPU.
void NoteGpuLayers(const Program& program, int64_t n_gpu_layers);

// "model.gguf: 2 workers, 8 threads, avx512, shm, 4096 tokens of context".
std::string WhatRuns(const Fleet& fleet);

}  // namespace thermocline
