// Starts a fleet with a progress bar and says what runs.
#include "coordinator/cli/start_fleet.h"

#include <fmt/format.h>

#include <cstdio>

#include "common/plan/plan.h"
#include "common/util/progress.h"
#include "common/util/status_macros.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

// "model.gguf: 2 workers, 8 threads, avx512, shm, 4096 tokens of context".
std::string WhatRuns(const Fleet& fleet) {
  const int32_t n_workers = fleet.plan().n_ranks();
  return fmt::format("{}: {} worker{}, {} thread{}, {}, {}, {} tokens of context",
                     fleet.model().id(), n_workers, n_workers == 1 ? "" : "s", fleet.n_threads(),
                     fleet.n_threads() == 1 ? "" : "s", fleet.isa(), fleet.transport(),
                     fleet.n_ctx());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Fleet>> StartFleet(const Program& program,
                                                  const FleetOptions& options) {
  Progress progress("loading", stderr, !program.quiet());
  absl::StatusOr<std::unique_ptr<Fleet>> fleet = Fleet::Start(
      options, [&](int64_t done, int64_t total) { progress.Update(done, total); },
      &StopSignals::stop());
  if (fleet.ok()) progress.Finish();
  if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
  RETURN_IF_ERROR(fleet.status());
  program.Note(WhatRuns(**fleet));
  if (program.verbose()) program.Detail("plan:\n" + PlanToJson((*fleet)->plan()));
  return fleet;
}

void NoteGpuLayers(const Program& program, int64_t n_gpu_layers) {
  if (n_gpu_layers == 0) return;
  program.Note("note: there is no GPU worker in this version; all layers are computed on the CPU");
}

}  // namespace thermocline
