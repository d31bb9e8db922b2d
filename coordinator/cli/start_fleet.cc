// Starts a fleet with a progress bar and says what runs.
#include "coordinator/cli/start_fleet.h"

#include <fmt/format.h>

#include <algorithm>
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
  return fmt::format("{}: {} worker{}, {} thread{}, {}, {}, sparsity {}, {} tokens of context",
                     fleet.model().id(), n_workers, n_workers == 1 ? "" : "s", fleet.n_threads(),
                     fleet.n_threads() == 1 ? "" : "s", fleet.isa(), fleet.transport(),
                     DescribeModes(fleet.plan()), fleet.n_ctx());
}

// Said until there is one: a plan may name ranks of kind gpu.
void NoteGpuRanks(const Program& program, const Plan& plan) {
  std::vector<size_t> gpus;
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    if (plan.ranks[r].kind == RankKind::kGpu && plan.ranks[r].address.empty()) gpus.push_back(r);
  }
  if (gpus.empty()) return;
  program.Note(fmt::format(
      "note: there is no GPU worker in this version; what the plan gives to the GPU of rank {} is "
      "computed by a CPU worker",
      fmt::join(gpus, ", ")));
}

}  // namespace

std::string DescribeModes(const Plan& plan) {
  std::vector<std::string> modes;
  int32_t min_bits = kMaxSketchBits, max_bits = 0;
  for (const LayerPlan& layer : plan.layers) {
    if (layer.mode == Sparsity::kSketch) {
      min_bits = std::min(min_bits, layer.sketch_bits);
      max_bits = std::max(max_bits, layer.sketch_bits);
    }
  }
  for (const LayerPlan& layer : plan.layers) {
    std::string name = SparsityName(layer.mode);
    if (layer.mode == Sparsity::kSketch) {
      name += min_bits == max_bits ? fmt::format(" ({} bits)", max_bits)
                                   : fmt::format(" ({} to {} bits)", min_bits, max_bits);
    }
    if (std::find(modes.begin(), modes.end(), name) == modes.end()) modes.push_back(name);
  }
  return fmt::format("{}", fmt::join(modes, " and "));
}

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
  NoteGpuRanks(program, (*fleet)->plan());
  if (program.verbose()) program.Detail("plan:\n" + PlanToJson((*fleet)->plan()));
  return fleet;
}

void NoteGpuLayers(const Program& program, int64_t n_gpu_layers) {
  if (n_gpu_layers == 0) return;
  program.Note("note: there is no GPU worker in this version; all layers are computed on the CPU");
}

}  // namespace thermocline
