// What one decode step costs: bytes that each rank reads, over its bandwidth, plus what is lost
// when ranks wait for each other. Predicts plans; makes none (hot_cold).
//
// The formula. A step is, for each layer, attention and then the FFN, each as slow as its slowest
// rank, plus losses, and the output matrix at the end:
//   step = sum_l [ max_r attention_lr + predictor_l + max_r ffn_lr + losses_l ] + max_r output_r
//   attention_lr = (weights of q, k, v, o + n_ctx * KV bytes of a token) * heads' share / B_r,
//                  where GPUs keep a part of the context only, the weights of the slowest and then
//                  the slowest part of the context, each kind of rank with its own
//   ffn_lr       = sum over the rank's neurons i of touched_i / B_r
//   touched_i    = of a neuron with the first matrix' row F (gate, or up without a gate), the other
//                  rows R, that fires in f_i of the steps and is computed in c_i = min(1, f_i *
//                  computed / firing):
//       off        F + R
//       exact      F + f_i R
//       predict    c_i F + f_i R, and the predictor: fc1 and fc2 on the rank that decides, or a
//                  row of fc2 for each neuron and fc1 on every rank with neurons
//       sketch     P + c_i (F - P) + f_i R, P the plane of its top bits: 1 bit a weight,
//       or 2.5, 3.5 threshold  F + c_i R
//     In a mixture of experts, F in off, exact, sketch, threshold counts as often as the expert is
//     used.
//   B_r          = described bandwidth * kCpuShare or * kGpuShare
//                  and a GPU's neurons take ffn_us more, which others may compute theirs in
//   losses_l     = layer_us where a GPU works in the layer; and for every exchange (one when the
//                  FFN is on several ranks, one more when attention is) the hand-over: with a GPU
//                  handover_us and the payload over its link, among CPUs kSharedMemoryUs. Two more
//                  in every layer where CPUs hold the tail of a GPU's context.
// It is the usual bandwidth model of decode (all weights are read once a token, arithmetic is
// free), as in PowerInfer's solver (arXiv 2312.12456, section 6.3: T = bytes / bandwidth), with
// attention, exchanges and modes. What it leaves out: compute-bound kernels (many threads on narrow
// weights), caches, and the gaps in scattered reads.
//
// Constants. Two are fitted, to published or measured rates of peers (published.cc prints the fit):
//   kCpuShare, to llama.cpp with part of OPT-30B, Yi-34B, Bamboo-7B on the CPU;
//   PowerInfer's hand-over, to its three hybrids on the H100.
// The others are measurements: kGpuShare (calm on the RTX 4090: 908 to 925 of 1008 GB/s), an
// exchange in shared memory (README, 64 KiB), GPU losses a layer (tokens/s of a whole model on the
// H100 against its bytes: ours 462, PowerInfer's 130, ik_llama.cpp's 358, of 744).
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/sparsity.h"
#include "common/plan/plan.h"
#include "solver/placement/firing.h"
#include "solver/placement/hardware.h"
#include "solver/placement/model_shape.h"

namespace thermocline {

inline constexpr double kCpuShare = 0.70;       // fitted
inline constexpr double kGpuShare = 0.90;       // measured by others
inline constexpr double kSharedMemoryUs = 5.8;  // measured

// How an engine runs a layer.
struct Engine {
  double gpu_layer_us = 0;  // lost on a GPU in each layer: launches or barriers, norms, rounding
  double handover_us = -1;  // GPU and others meet; -1: what the hardware says
  bool meets_in_every_layer = true;  // false: only where the home changes (a split by layers)
  double gpu_ffn_us = 0;  // beside gpu_layer_us, while a GPU computes neurons, and others theirs
};
Engine ThermoclineEngine();
Engine PowerInferEngine();
Engine LlamaCppEngine();

// How a layer's neurons are skipped.
struct LayerMode {
  Sparsity mode = Sparsity::kOff;
  int32_t sketch_bits = 0;
  double computed = 1;  // share of the neurons that is computed: predict, sketch, threshold
  bool operator==(const LayerMode&) const = default;
};

// What may be planned with: each [n_layers]. Not empty.
using ModeChoices = std::vector<std::vector<LayerMode>>;

// Bytes that a step reads of each neuron, hottest first, without the predictor. [d_ff]
std::vector<double> TouchedBytes(const LayerShape& layer, double weight_bits,
                                 const FiringTable& firing, const LayerMode& mode);

class CostModel {
 public:
  // All arguments must outlive it. n_ctx: tokens of KV cache that a step reads; n_session_ctx:
  // positions of one session, of which they are (0: n_ctx).
  CostModel(const ModelShape& shape, const Hardware& hardware, const Engine& engine, int64_t n_ctx,
            int64_t n_session_ctx = 0);

  double UsPerByte(int32_t rank) const;
  // Of the context's K and V; 1 without a gpu_ctx.
  double ShareOnGpus(const Plan& plan) const;
  // Read in a step: q, k, v and o; K and V of the context.
  double AttentionBytes(int64_t layer, const Plan& plan, int32_t rank) const;
  double ContextBytes(int64_t layer, const Plan& plan, int32_t rank) const;
  double OutputBytes(const Range& rows) const;
  // Bytes of the predictor that rank r reads in a step; n_neurons: that it holds.
  double PredictorBytes(int64_t layer, const LayerPlan& plan, int32_t rank,
                        int64_t n_neurons) const;
  // touched: [n_layers] of TouchedBytes. Sets predicted_us of the plan and of its layers; a rank's
  // are what it works in the layer, without waiting.
  void Predict(const std::vector<std::vector<double>>& touched, Plan* plan) const;

 private:
  std::vector<int32_t> RanksOf(const LayerPlan& layer) const;
  double ExchangeUs(const std::vector<int32_t>& ranks) const;
  double LossUs(const Plan& plan, size_t index) const;
  double ShareOfHeads(const Range& kv_heads) const;

  const ModelShape& shape_;
  const Hardware& hardware_;
  const Engine engine_;
  const int64_t n_ctx_, n_session_ctx_;
};

}  // namespace thermocline
