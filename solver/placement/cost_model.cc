// The cost model's arithmetic; the formula and its constants are explained in the header.
#include "solver/placement/cost_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace thermocline {
namespace {

// The H100's figures (32 layers, 3.72 GB at 90 % of 3,094 GB/s: 1.34 ms a token): 462 tokens/s
// leave 26 us a layer, 130 leave 199, 358 leave 45.
constexpr double kThermoclineLayerUs = 26;
constexpr double kPowerInferLayerUs = 199;
constexpr double kLlamaCppLayerUs = 45;
constexpr double kPowerInferHandoverUs = 560;  // fitted
constexpr double kLlamaCppHandoverUs = 27;     // copy and synchronise: 24 to 30 us, measured

double Sum(const std::vector<double>& values, const Range& range) {
  return std::accumulate(values.begin() + range.begin, values.begin() + range.end, 0.0);
}

int64_t Count(const std::vector<Range>& ranges) {
  int64_t n = 0;
  for (const Range& range : ranges) n += range.size();
  return n;
}

}  // namespace

Engine ThermoclineEngine() { return {.gpu_layer_us = kThermoclineLayerUs}; }
Engine PowerInferEngine() {
  return {.gpu_layer_us = kPowerInferLayerUs, .handover_us = kPowerInferHandoverUs};
}
Engine LlamaCppEngine() {
  return {.gpu_layer_us = kLlamaCppLayerUs,
          .handover_us = kLlamaCppHandoverUs,
          .meets_in_every_layer = false};
}

std::vector<double> TouchedBytes(const LayerShape& layer, double weight_bits,
                                 const FiringTable& firing, const LayerMode& mode) {
  const double first = layer.gate_bytes > 0 ? layer.gate_bytes : layer.up_bytes;
  const double rest = layer.neuron_bytes() - first;
  const double over = mode.computed / std::max(firing.mean(), 1e-12);
  const double plane_bits = mode.sketch_bits == 1 ? 1 : mode.sketch_bits + 0.5;
  const double plane = first * std::min(1.0, plane_bits / weight_bits);
  std::vector<double> touched;
  for (size_t i = 0; i < firing.fires.size(); ++i) {
    const double fires = firing.fires[i];
    const double routed = firing.routed.empty() ? 1 : firing.routed[i];
    const double computed = std::min(routed, fires * over);
    switch (mode.mode) {
      case Sparsity::kOff:
        touched.push_back(routed * (first + rest));
        break;
      case Sparsity::kExact:
        touched.push_back(routed * first + fires * rest);
        break;
      case Sparsity::kPredict:
        touched.push_back(computed * first + fires * rest);
        break;
      case Sparsity::kSketch:
        touched.push_back(routed * plane + computed * (first - plane) + fires * rest);
        break;
      case Sparsity::kThreshold:
        touched.push_back(routed * first + computed * rest);
        break;
    }
  }
  return touched;
}

CostModel::CostModel(const ModelShape& shape, const Hardware& hardware, const Engine& engine,
                     int64_t n_ctx, int64_t n_session_ctx)
    : shape_(shape),
      hardware_(hardware),
      engine_(engine),
      n_ctx_(n_ctx),
      n_session_ctx_(n_session_ctx > 0 ? n_session_ctx : n_ctx) {}

double CostModel::UsPerByte(int32_t rank) const {
  const HardwareRank& hardware = hardware_.ranks[rank];
  const double share = hardware.kind == RankKind::kGpu ? kGpuShare : kCpuShare;
  return 1e-3 / (hardware.gbps * share);  // 1 GB/s is 1e3 bytes a us
}

double CostModel::ShareOnGpus(const Plan& plan) const {
  if (plan.gpu_ctx == 0) return 1;
  return static_cast<double>(plan.gpu_ctx) / static_cast<double>(n_session_ctx_);
}

double CostModel::AttentionBytes(int64_t layer, const Plan& plan, int32_t rank) const {
  return ShareOfHeads(plan.layers[layer].kv_heads[rank]) * shape_.layers[layer].attention_bytes;
}

double CostModel::ContextBytes(int64_t layer, const Plan& plan, int32_t rank) const {
  const LayerPlan& held = plan.layers[layer];
  const bool is_gpu = hardware_.ranks[rank].kind == RankKind::kGpu;
  const double own = ShareOfHeads(held.kv_heads[rank]) * (is_gpu ? ShareOnGpus(plan) : 1);
  const double tail = held.tail_heads.empty() ? 0 : ShareOfHeads(held.tail_heads[rank]);
  return (own + tail * (1 - ShareOnGpus(plan))) * static_cast<double>(n_ctx_) *
         (is_gpu ? shape_.gpu_kv_token_bytes() : shape_.kv_token_bytes());
}

double CostModel::ShareOfHeads(const Range& kv_heads) const {
  return static_cast<double>(kv_heads.size()) / static_cast<double>(shape_.config.n_kv_heads);
}

double CostModel::OutputBytes(const Range& rows) const {
  return shape_.output_bytes * static_cast<double>(rows.size()) /
         static_cast<double>(shape_.config.n_vocab);
}

double CostModel::PredictorBytes(int64_t layer, const LayerPlan& plan, int32_t rank,
                                 int64_t n_neurons) const {
  if (plan.mode != Sparsity::kPredict) return 0;
  const auto is_cpu = [this](int32_t r) { return hardware_.ranks[r].kind == RankKind::kCpu; };
  if (plan.decider >= 0 && is_cpu(rank)) return 0;
  for (int32_t r = 0; plan.decider == rank && r < std::ssize(plan.neurons); ++r) {
    if (is_cpu(r)) n_neurons += Count(plan.neurons[r]);
  }
  if (n_neurons == 0) return 0;
  const LayerShape& shape = shape_.layers[layer];
  return shape.fc1_bytes + static_cast<double>(n_neurons) * shape.fc2_neuron_bytes;
}

std::vector<int32_t> CostModel::RanksOf(const LayerPlan& layer) const {
  std::vector<int32_t> ranks;
  for (int32_t r = 0; r < static_cast<int32_t>(hardware_.ranks.size()); ++r) {
    const bool has_tail = !layer.tail_heads.empty() && layer.tail_heads[r].size() > 0;
    if (layer.kv_heads[r].size() > 0 || Count(layer.neurons[r]) > 0 || has_tail) {
      ranks.push_back(r);
    }
  }
  return ranks;
}

double CostModel::ExchangeUs(const std::vector<int32_t>& ranks) const {
  double us = kSharedMemoryUs;
  for (const int32_t r : ranks) {
    const HardwareRank& rank = hardware_.ranks[r];
    if (rank.kind != RankKind::kGpu) continue;
    const double payload_bytes = 4.0 * static_cast<double>(shape_.config.d_model);  // each way
    const double handover_us = engine_.handover_us >= 0 ? engine_.handover_us : rank.handover_us;
    us = std::max(us, handover_us + 2e-3 * payload_bytes / rank.link_gbps);
  }
  return us;
}

double CostModel::LossUs(const Plan& plan, size_t index) const {
  const LayerPlan& layer = plan.layers[index];
  const LayerPlan* previous = index > 0 ? &plan.layers[index - 1] : nullptr;
  const std::vector<int32_t> ranks = RanksOf(layer);
  const auto is_gpu = [&](int32_t r) { return hardware_.ranks[r].kind == RankKind::kGpu; };
  const bool has_gpu = std::any_of(ranks.begin(), ranks.end(), is_gpu);
  double us = has_gpu ? engine_.gpu_layer_us : 0;
  std::vector<int32_t> met = ranks;
  if (previous != nullptr && RanksOf(*previous) != ranks) {  // h goes to where the layer is
    for (const int32_t r : RanksOf(*previous)) {
      if (std::find(met.begin(), met.end(), r) == met.end()) met.push_back(r);
    }
    if (ranks.size() == 1 || !engine_.meets_in_every_layer) us += ExchangeUs(met);
  }
  if (ranks.size() > 1 && engine_.meets_in_every_layer) {
    const auto n_with_heads = std::count_if(layer.kv_heads.begin(), layer.kv_heads.end(),
                                            [](const Range& heads) { return heads.size() > 0; });
    us += ExchangeUs(ranks) * (n_with_heads > 1 ? 2 : 1);
  }
  if (plan.gpu_ctx > 0) {
    std::vector<int32_t> all(plan.ranks.size());
    std::iota(all.begin(), all.end(), 0);
    us += 2 * ExchangeUs(all);
  }
  return us;
}

void CostModel::Predict(const std::vector<std::vector<double>>& touched, Plan* plan) const {
  const int32_t n_ranks = plan->n_ranks();
  const auto round = [](double us) { return std::round(us * 10) / 10; };  // for people's eyes
  double step = 0;
  for (size_t l = 0; l < plan->layers.size(); ++l) {
    LayerPlan& layer = plan->layers[l];
    layer.predicted_us.assign(n_ranks, 0);
    double weights = 0, context = 0, attention = 0, predictor = 0, ffn = 0;
    for (int32_t r = 0; r < n_ranks; ++r) {
      const double us_per_byte = UsPerByte(r);
      const auto index = static_cast<int64_t>(l);
      const double weights_us = AttentionBytes(index, *plan, r) * us_per_byte;
      const double context_us = ContextBytes(index, *plan, r) * us_per_byte;
      const double heads_us = weights_us + context_us;
      const double decide_us =
          us_per_byte * PredictorBytes(index, layer, r, Count(layer.neurons[r]));
      double neurons_us = 0;
      for (const Range& range : layer.neurons[r]) neurons_us += Sum(touched[l], range);
      neurons_us *= us_per_byte;
      const bool is_gpu = hardware_.ranks[r].kind == RankKind::kGpu;
      if (is_gpu && neurons_us > 0) neurons_us += engine_.gpu_ffn_us;
      weights = std::max(weights, weights_us);
      context = std::max(context, context_us);
      attention = std::max(attention, heads_us);
      predictor = std::max(predictor, decide_us);
      ffn = std::max(ffn, neurons_us);
      layer.predicted_us[r] = round(heads_us + decide_us + neurons_us);
    }
    if (plan->gpu_ctx > 0) attention = weights + context;  // the tail waits for q, k and v
    step += attention + predictor + ffn + LossUs(*plan, l);
  }
  double output = 0;
  for (int32_t r = 0; r < n_ranks; ++r) {
    output = std::max(output, OutputBytes(plan->vocab[r]) * UsPerByte(r));
  }
  plan->predicted_us = round(step + output);
}

}  // namespace thermocline
