// Options of solve to those of the planner.
#include "solver/profile/folder_plan.h"

#include <fmt/format.h>

#include "common/plan/plan.h"
#include "common/util/status_macros.h"
#include "solver/placement/plan_options.h"
#include "solver/placement/stream_tokens.h"

namespace thermocline {

std::string AssumedGpu(double memory_gib) {
  // Bandwidth by the makers' data sheets: RTX 3060, RTX 4070 Ti SUPER, RTX 3090, A100 40 GB, H100.
  constexpr struct {
    double below_gib, gbps;
  } kCards[] = {{14, 360}, {20, 672}, {36, 936}, {64, 1555}, {1e9, 3350}};
  for (const auto& card : kCards) {
    if (memory_gib < card.below_gib)
      return fmt::format("gpu({:g}GiB,{:g}GB/s)", memory_gib, card.gbps);
  }
  return "";
}

absl::Status WriteFolderPlan(const SolveOptions& options, const std::string& folder) {
  PlanOptions plan_options;
  plan_options.model_path = options.model_path;
  plan_options.activation = options.hidden_activation;
  plan_options.predictor_path = folder;
  plan_options.hardware = options.hardware;
  plan_options.n_threads = options.n_threads;
  plan_options.n_ctx = options.n_ctx;
  plan_options.n_gpu_layers = options.n_gpu_layers;
  ASSIGN_OR_RETURN(PlanInputs inputs, ReadPlanInputs(plan_options));
  if (options.gpu_memory_gib > 0 && options.hardware.empty()) {
    ASSIGN_OR_RETURN(Hardware machine, ParseHardware(AssumedGpu(options.gpu_memory_gib)));
    machine.ranks.insert(machine.ranks.end(), inputs.hardware.ranks.begin(),
                         inputs.hardware.ranks.end());
    inputs.hardware = std::move(machine);
  } else if (options.gpu_memory_gib > 0) {
    inputs.request.vram_budget_bytes = options.gpu_memory_gib * 1024 * 1024 * 1024;
  }
  ASSIGN_OR_RETURN(PlannedFleet fleet, PlanHotCold(inputs.shape, inputs.hardware, inputs.firing,
                                                   inputs.modes, inputs.request));
  fleet.plan.model_hash = inputs.model_hash;
  fleet.plan.stream_tokens =
      ChooseStreaming(inputs.shape, inputs.hardware, fleet, kUsualBatch).tokens;
  RETURN_IF_ERROR(CheckPlan(fleet.plan, inputs.shape.config, inputs.model_hash, &inputs.profile));
  return WritePlan(fleet.plan, folder + "/plan.json");
}

}  // namespace thermocline
