// See start_fleet.h.
#include "coordinator/cli/start_fleet.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <set>
#include <thread>

#include "absl/strings/str_join.h"
#include "common/util/progress.h"
#include "common/util/status_macros.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

// A worker enters the exchange on a thread of its own, a moment after the fleet stands.
constexpr std::chrono::milliseconds kAttachTimeout(2000), kAttachPoll(5);

}  // namespace

absl::StatusOr<std::unique_ptr<Fleet>> StartFleet(const Program& program,
                                                  const FleetOptions& options) {
  Progress progress("loading", stderr, !program.quiet());
  int64_t n_bytes = 0;
  absl::StatusOr<std::unique_ptr<Fleet>> fleet = Fleet::Start(
      options,
      [&](int64_t done, int64_t total) {
        n_bytes = total;
        progress.Update(done, total);
      },
      &StopSignals::stop());
  if (fleet.ok()) {
    progress.Update(n_bytes, n_bytes);  // the last report may be older than the end
    progress.Finish();
  }
  if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
  return fleet;
}

void NoteGpuLayers(const Program& program, int64_t n_gpu_layers) {
  if (n_gpu_layers == 0) return;
  program.Note("note: there is no GPU worker in this version; all layers are computed on the CPU");
}

absl::StatusOr<std::string> Transport(Fleet* fleet) {
  const auto deadline = std::chrono::steady_clock::now() + kAttachTimeout;
  for (;;) {
    ASSIGN_OR_RETURN(const std::vector<worker::v1::StatsResponse> stats, fleet->Stats());
    std::set<std::string> carriers;
    for (const worker::v1::StatsResponse& rank : stats) carriers.insert(rank.carrier());
    const bool attached = carriers.count("") == 0;
    if (attached || std::chrono::steady_clock::now() > deadline) {
      return absl::StrJoin(carriers, "+");
    }
    std::this_thread::sleep_for(kAttachPoll);
  }
}

absl::StatusOr<std::string> WhatRuns(Fleet* fleet) {
  ASSIGN_OR_RETURN(const std::string transport, Transport(fleet));
  const int32_t n_workers = fleet->plan().n_ranks();
  return fmt::format("{}: {} worker{}, {} thread{}, {}, {}, {} tokens of context",
                     fleet->model().id(), n_workers, n_workers == 1 ? "" : "s", fleet->n_threads(),
                     fleet->n_threads() == 1 ? "" : "s", fleet->isa(), transport, fleet->n_ctx());
}

}  // namespace thermocline
