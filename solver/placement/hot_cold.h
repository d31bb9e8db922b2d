// From a model, its firing and a machine to a plan: whole layers, attention and KV cache, output
// matrix, then neurons where the step is fastest. Prints nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/plan.h"
#include "solver/placement/cost_model.h"

namespace thermocline {

inline constexpr int64_t kAutoLayers = -2;  // as many whole layers on GPUs as is fastest
inline constexpr int64_t kAllLayers = -1;

struct PlacementRequest {
  int64_t n_gpu_layers = kAutoLayers;
  double vram_budget_bytes = 0;  // of each GPU, 0: all that it has
  int64_t n_ctx = 4096;          // tokens of KV cache that a step reads
  int64_t n_kv_tokens = 0;       // of KV cache in f16 that there is memory for; 0: n_ctx
  int64_t n_session_ctx = 0;     // positions of one session, which they are of; 0: n_ctx
  // All ranks exchange in one host's memory: then GPUs may keep a part of the context and CPUs the
  // rest, and a GPU may choose the neurons that CPUs compute.
  bool shares_memory = true;
  // Beside weights and KV cache: the program, the exchange and what the system needs.
  double cpu_workspace_bytes = 1024.0 * 1024 * 1024;
  // The same on a GPU: context and code of the driver, buffers and graphs of steps.
  double gpu_workspace_bytes = 512.0 * 1024 * 1024;
  Engine engine = ThermoclineEngine();
};

// What the planner knows of how neurons fire.
struct FiringKnowledge {
  std::vector<FiringTable> tables;  // [n_layers]
  std::string order;                // ProfileHash, or another name of the order; "": none known
};

struct PlannedRank {
  double attention_bytes = 0, kv_bytes = 0, neuron_bytes = 0, predictor_bytes = 0;
  double output_bytes = 0, workspace_bytes = 0;
  double limit_bytes = 0;
  double total_bytes() const {
    return attention_bytes + kv_bytes + neuron_bytes + predictor_bytes + output_bytes +
           workspace_bytes;
  }
};

struct PlannedFleet {
  Plan plan;                                 // model_hash is the caller's to set
  FiringKnowledge firing;                    // in the order that the plan counts neurons in
  std::vector<LayerMode> modes;              // [n_layers]
  std::vector<std::vector<double>> touched;  // [n_layers][d_ff], as TouchedBytes
  std::vector<PlannedRank> ranks;
  int64_t n_whole_layers = 0;  // on GPUs
};

// The fastest over all choices of modes; without a GPU, with the first. With an order of neurons (a
// profile), in order: n_gpu_layers whole layers, attention and KV cache
// of the others as far as they fit, hot neurons. Without, it is llama.cpp's split by layers: what
// lies on a GPU lies there as a whole layer. Layers, heads and vocabulary that several ranks share
// are split by bandwidth. Without a GPU all ranks are alike but for their bandwidth, and neurons
// stay in the file's order, cut where each rank has its share of the expected work (a rank with
// neurons from all over a file would hold and read nearly all scales of ffn_down): only where
// memories are too small for that are they dealt by the profile's order. Where GPUs have no room
// for all attention with the whole context, they may keep the first part of it alone
// (Plan::gpu_ctx: as much as there is room for, or a half, a quarter, ... of that), if this is
// predicted to be faster when the context is full. In mode predict a GPU that is the only one and
// has a layer's attention chooses the CPUs' neurons of it, too (LayerPlan::decider), if this is
// predicted to be faster than each rank's own choice. ResourceExhausted with the numbers and the
// remedy when memory does not suffice; InvalidArgument for GPU layers without a GPU.
absl::StatusOr<PlannedFleet> PlanHotCold(const ModelShape& shape, const Hardware& hardware,
                                         const FiringKnowledge& firing, const ModeChoices& choices,
                                         const PlacementRequest& request);

}  // namespace thermocline
