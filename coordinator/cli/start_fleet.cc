// See start_fleet.h.
#include "coordinator/cli/start_fleet.h"

#include <fmt/format.h>

#include <cstdio>

#include "common/util/progress.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<Fleet>> StartFleet(const Program& program,
                                                  const FleetOptions& options) {
  Progress progress("loading", stderr, !program.quiet());
  absl::StatusOr<std::unique_ptr<Fleet>> fleet = Fleet::Start(
      options, [&](int64_t done, int64_t total) { progress.Update(done, total); },
      &StopSignals::stop());
  if (fleet.ok()) progress.Finish();
  if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
  return fleet;
}

void NoteGpuLayers(const Program& program, int64_t n_gpu_layers) {
  if (n_gpu_layers == 0) return;
  program.Note("note: there is no GPU worker in this version; all layers are computed on the CPU");
}

std::string WhatRuns(const Fleet& fleet) {
  const int32_t n_workers = fleet.plan().n_ranks();
  return fmt::format("{}: {} worker{}, {} thread{}, {}, {}, {} tokens of context",
                     fleet.model().id(), n_workers, n_workers == 1 ? "" : "s", fleet.n_threads(),
                     fleet.n_threads() == 1 ? "" : "s", fleet.isa(), fleet.transport(),
                     fleet.n_ctx());
}

}  // namespace thermocline
