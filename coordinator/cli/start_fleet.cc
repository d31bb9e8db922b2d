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

// "model.gguf: cuda:0 (NVIDIA H100) and 2 workers, 8 threads, avx512, shm, sparsity exact, 4096
// tokens of context".
std::string WhatRuns(const Fleet& fleet) {
  const size_t n_cpu_workers = fleet.plan().ranks.size() - fleet.devices().size();
  std::vector<std::string> ranks = fleet.devices();
  if (n_cpu_workers > 0) {
    ranks.push_back(fmt::format("{} worker{}, {} thread{}, {}", n_cpu_workers,
                                n_cpu_workers == 1 ? "" : "s", fleet.n_threads(),
                                fleet.n_threads() == 1 ? "" : "s", fleet.isa()));
  }
  return fmt::format("{}: {}, {}, sparsity {}, {} tokens of context", fleet.model().id(),
                     fmt::join(ranks, " and "), fleet.transport(), DescribeModes(fleet.plan()),
                     fleet.n_ctx());
}

// Says what was asked for on a GPU, or planned for one, and is computed on the CPU.
void NoteGpus(const Program& program, const FleetOptions& options, const Fleet& fleet) {
  const std::string reason =
      fleet.no_gpu_reason().empty() ? "--gpu-device none" : fleet.no_gpu_reason();
  std::vector<size_t> by_cpus;
  const std::vector<RankPlan>& ranks = fleet.plan().ranks;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (ranks[r].kind == RankKind::kGpu && ranks[r].device.empty()) by_cpus.push_back(r);
  }
  const bool wants_gpu = options.n_gpu_layers == kAllLayers || options.n_gpu_layers > 0 ||
                         options.vram_budget_bytes > 0;
  if (!by_cpus.empty()) {
    program.Note(fmt::format(
        "note: what the plan gives to the GPU of rank {} is computed by a CPU worker ({})",
        fmt::join(by_cpus, ", "), reason));
  } else if (wants_gpu && fleet.devices().empty()) {
    program.Note(
        fmt::format("note: no GPU is used, all layers are computed on the CPU ({})", reason));
  } else if (!fleet.no_gpu_reason().empty() && fleet.devices().empty()) {
    program.Detail(fmt::format("no GPU: {}", reason));
  }
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
                                                  const FleetOptions& asked) {
  FleetOptions options = asked;
  options.on_trace = [&program, path = asked.trace_path](const absl::Status& status) {
    if (status.ok()) {
      program.Note(fmt::format("trace of the last steps: {}", path));
    } else {
      program.Error(absl::Status(
          status.code(), fmt::format("no trace was written: {}", std::string(status.message()))));
    }
  };
  Progress progress("loading", stderr, !program.quiet());
  absl::StatusOr<std::unique_ptr<Fleet>> fleet = Fleet::Start(
      options, [&](int64_t done, int64_t total) { progress.Update(done, total); },
      &StopSignals::stop());
  if (fleet.ok()) progress.Finish();
  if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
  RETURN_IF_ERROR(fleet.status());
  program.Note(WhatRuns(**fleet));
  NoteGpus(program, options, **fleet);
  if (const int64_t gpu_ctx = (*fleet)->plan().gpu_ctx; gpu_ctx > 0) {
    program.Note(fmt::format("of a context of {} tokens, GPUs hold K and V of the first {}",
                             (*fleet)->n_ctx(), gpu_ctx));
  }
  if (program.verbose()) program.Detail("plan:\n" + PlanToJson((*fleet)->plan()));
  return fleet;
}

}  // namespace thermocline
