// The cost model's arithmetic on plans that can be computed by hand.
#include "solver/placement/cost_model.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

// One layer of 4 heads and 8 neurons of 3,000 bytes; a GPU and a node.
ModelShape TinyShape(int64_t n_layers) {
  ModelShape shape;
  shape.config.n_layers = n_layers;
  shape.config.d_model = 1000;
  shape.config.d_ff = 8;
  shape.config.n_heads = shape.config.n_kv_heads = 4;
  shape.config.d_head = 250;
  shape.config.n_vocab = 100;
  shape.weight_bits = 8;
  LayerShape layer;
  layer.attention_bytes = 4e6;
  layer.gate_bytes = layer.up_bytes = layer.down_bytes = 1000;
  shape.layers.assign(n_layers, layer);
  shape.output_bytes = 1e5;
  return shape;
}

Plan PlanOf(int64_t n_layers, std::vector<Range> heads, std::vector<Range> neurons) {
  Plan plan;
  plan.ranks.resize(heads.size());
  LayerPlan layer;
  layer.kv_heads = std::move(heads);
  for (const Range& range : neurons) layer.neurons.push_back({range});
  plan.layers.assign(n_layers, layer);
  plan.vocab = {{0, 100}, {100, 100}};
  return plan;
}

TEST(CostModel, AddsAttentionSlowestRankAndLosses) {
  const ModelShape shape = TinyShape(1);
  const Hardware hardware =
      *ParseHardware("gpu(8GiB,1000GB/s,link=10GB/s,handover=7us)+(8GiB,10GB/s)");
  const Engine engine = {20, -1, true};
  const CostModel cost(shape, hardware, engine, 1000);
  Plan plan = PlanOf(1, {{0, 4}, {4, 4}}, {{0, 6}, {6, 8}});
  std::vector<std::vector<double>> touched = {{900, 800, 700, 600, 500, 400, 300, 200}};
  cost.Predict(touched, &plan);
  const double gpu = 1e-3 / (1000 * kGpuShare), cpu = 1e-3 / (10 * kCpuShare);
  const double attention = (4e6 + 1000 * 2 * 2 * 4 * 256) * gpu;  // heads of 250 take 256
  const double ffn = std::max(3900 * gpu, 500 * cpu);
  const double losses = 20 + 7 + 2 * 4000 / 10e3;
  EXPECT_NEAR(plan.predicted_us, attention + ffn + losses + 1e5 * gpu, 0.06);
  EXPECT_NEAR(plan.layers[0].predicted_us[0], attention + 3900 * gpu, 0.06);
  EXPECT_NEAR(plan.layers[0].predicted_us[1], 500 * cpu, 0.06);
}

TEST(CostModel, OthersComputeNeuronsWhileAGpuLosesTimeWithIts) {
  const ModelShape shape = TinyShape(1);
  const Hardware hardware = *ParseHardware("gpu(8GiB,1000GB/s)+(8GiB,10GB/s)");
  const auto step_us = [&](const Engine& engine, double touched) {
    Plan plan = PlanOf(1, {{0, 4}, {4, 4}}, {{0, 6}, {6, 8}});
    CostModel(shape, hardware, engine, 0).Predict({std::vector<double>(8, touched)}, &plan);
    return plan.predicted_us;
  };
  const Engine none = {.handover_us = 7}, lost = {.handover_us = 7, .gpu_ffn_us = 50};
  const double cpu = 1e-3 / (10 * kCpuShare), gpu = 1e-3 / (1000 * kGpuShare);
  EXPECT_NEAR(step_us(lost, 1e6), step_us(none, 1e6), 0.11);  // the CPU's two take 286 us
  EXPECT_NEAR(step_us(lost, 1e3) - step_us(none, 1e3), 50 + 6e3 * gpu - 2e3 * cpu, 0.11);
}

TEST(CostModel, NothingIsExchangedByARankAlone) {
  const ModelShape shape = TinyShape(3);
  const Hardware hardware = *ParseHardware("2x(8GiB,10GB/s)");
  const CostModel cost(shape, hardware, ThermoclineEngine(), 0);
  const std::vector<std::vector<double>> touched(3, std::vector<double>(8, 3000));
  Plan alone = PlanOf(3, {{0, 4}, {4, 4}}, {{0, 8}, {8, 8}});
  cost.Predict(touched, &alone);
  const double cpu = 1e-3 / (10 * kCpuShare);
  EXPECT_NEAR(alone.predicted_us, 3 * (4e6 + 24000) * cpu + 1e5 * cpu, 0.06);
  // Both halves at once, with two exchanges a layer.
  Plan shared = PlanOf(3, {{0, 2}, {2, 4}}, {{0, 4}, {4, 8}});
  cost.Predict(touched, &shared);
  EXPECT_NEAR(shared.predicted_us, 3 * ((2e6 + 12000) * cpu + 2 * kSharedMemoryUs) + 1e5 * cpu,
              0.06);
}

TEST(CostModel, ThePredictorIsReadByWhoDecides) {
  ModelShape shape = TinyShape(1);
  shape.layers[0].fc1_bytes = 1e6;
  shape.layers[0].fc2_neuron_bytes = 1e5;
  const Hardware hardware = *ParseHardware("2x(8GiB,10GB/s)+2xgpu(8GiB,100GB/s)");
  const CostModel cost(shape, hardware, ThermoclineEngine(), 0);
  LayerPlan layer;
  layer.mode = Sparsity::kPredict;
  layer.neurons = {{{0, 2}}, {{2, 5}}, {{5, 6}}, {{6, 8}}};
  EXPECT_EQ(cost.PredictorBytes(0, layer, 0, 2), 1e6 + 2e5);
  EXPECT_EQ(cost.PredictorBytes(0, layer, 1, 0), 0);
  layer.decider = 3;
  EXPECT_EQ(cost.PredictorBytes(0, layer, 0, 2), 0);
  EXPECT_EQ(cost.PredictorBytes(0, layer, 1, 3), 0);
  EXPECT_EQ(cost.PredictorBytes(0, layer, 2, 1), 1e6 + 1e5) << "a GPU chooses its own";
  EXPECT_EQ(cost.PredictorBytes(0, layer, 3, 2), 1e6 + 7e5) << "and all of the CPUs'";
  layer.mode = Sparsity::kExact;
  EXPECT_EQ(cost.PredictorBytes(0, layer, 3, 8), 0);
}

}  // namespace
}  // namespace thermocline
