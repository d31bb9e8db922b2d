// Whole plans of described models: memory, the order of what goes on the GPU, what is refused.
#include "solver/placement/hot_cold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "solver/placement/choose_modes.h"
#include "solver/placement/plan_report.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;
constexpr double kGib = 1024.0 * 1024 * 1024;

struct Case {
  ModelShape shape;
  Hardware hardware;
  FiringKnowledge firing;
  ModeChoices modes;
  PlacementRequest request;

  absl::StatusOr<PlannedFleet> Plan() const {
    return PlanHotCold(shape, hardware, firing, modes, request);
  }
};

// order "": as a file without a profile.
Case Make(const std::string& shape, bool is_relu, const std::string& hardware,
          const std::string& order = "described", std::optional<Sparsity> mode = std::nullopt) {
  Case c;
  c.shape = *DescribeShape({shape, "q4_k_m", is_relu, is_relu ? 0.06 : 0});
  c.hardware = *ParseHardware(hardware);
  c.firing = {FiringOfCurve(c.shape, DefaultCurve(c.shape)), order};
  ModeRequest request;
  request.mode = mode;
  c.modes = *ChooseModes(c.shape, c.firing.tables, {nullptr, true}, request);
  return c;
}

// Every head, neuron and row once, and every rank within its memory.
void ExpectGood(const Case& c, const PlannedFleet& fleet) {
  Plan plan = fleet.plan;
  plan.profile_hash = "";  // its profile is described only; cuts at 32s are checked elsewhere
  ModelConfig config = c.shape.config;
  if (!fleet.plan.profile_hash.empty()) {
    Profile profile;
    plan.profile_hash = ProfileHash(profile);
    EXPECT_TRUE(CheckPlan(plan, config, "", &profile).ok())
        << CheckPlan(plan, config, "", &profile);
  } else {
    EXPECT_TRUE(CheckPlan(plan, config, "").ok()) << CheckPlan(plan, config, "");
  }
  for (size_t r = 0; r < fleet.ranks.size(); ++r) {
    EXPECT_LE(fleet.ranks[r].total_bytes(), fleet.ranks[r].limit_bytes * (1 + 1e-9)) << r;
  }
  EXPECT_GT(fleet.plan.predicted_us, 0);
}

int64_t NeuronsOf(const PlannedFleet& fleet, size_t layer, int32_t rank) {
  int64_t n = 0;
  for (const Range& range : fleet.plan.layers[layer].neurons[rank]) n += range.size();
  return n;
}

TEST(PlanHotCold, PutsAttentionAndTheHottestNeuronsOnTheGpu) {
  const Case c = Make("70b", true, "rtx4090+2x(64GiB,100GB/s)");
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  for (size_t l = 0; l < 80; ++l) {
    const LayerPlan& layer = fleet->plan.layers[l];
    EXPECT_EQ(layer.kv_heads[0].size(), 8);
    ASSERT_FALSE(layer.neurons[0].empty());
    EXPECT_EQ(layer.neurons[0][0].begin, 0);  // the hottest
    EXPECT_GT(ActivationsCovered(c.firing.tables[l], layer.neurons[0]), 0.7);
  }
  EXPECT_GT(fleet->ranks[0].total_bytes(), 0.99 * 24 * kGib);  // and uses its memory up
  // The two nodes work equally long.
  EXPECT_NEAR(fleet->plan.layers[40].predicted_us[1], fleet->plan.layers[40].predicted_us[2],
              0.03 * fleet->plan.layers[40].predicted_us[1]);
}

TEST(PlanHotCold, NodesAreBalancedInModeOffToo) {
  const PlannedFleet fleet = *Make("70b", true, "rtx4090+(64GiB,100GB/s)+(64GiB,50GB/s)").Plan();
  EXPECT_NEAR(
      static_cast<double>(NeuronsOf(fleet, 7, 1)) / static_cast<double>(NeuronsOf(fleet, 7, 2)),
      2.0, 0.01);
  EXPECT_NEAR(fleet.plan.layers[7].predicted_us[1], fleet.plan.layers[7].predicted_us[2],
              0.02 * fleet.plan.layers[7].predicted_us[1]);
}

TEST(PlanHotCold, EverythingOnOneGpuLeavesNothingToPlace) {
  Case c = Make("7b", true, "rtx4090+(64GiB,100GB/s)");
  c.request.n_gpu_layers = kAllLayers;
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_EQ(NeuronsOf(*fleet, 31, 0), 11008);
}

TEST(PlanHotCold, IsFasterThanLayersAndSoIsMoreMemory) {
  const Case c = Make("70b", true, "rtx3090+(128GiB,60GB/s)");
  Case by_layers = c;
  by_layers.firing.order = "";
  const double hot_cold_us = c.Plan()->plan.predicted_us;
  EXPECT_LT(hot_cold_us, 0.7 * by_layers.Plan()->plan.predicted_us);
  double last = hot_cold_us * 100;
  for (const int gib : {14, 18, 24, 40, 80}) {
    const Case more =
        Make("70b", true, "gpu(" + std::to_string(gib) + "GiB,936GB/s)+(128GiB,60GB/s)");
    const absl::StatusOr<PlannedFleet> fleet = more.Plan();
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    ExpectGood(more, *fleet);
    EXPECT_LT(fleet->plan.predicted_us, last * 1.001) << gib;
    last = fleet->plan.predicted_us;
  }
}

TEST(PlanHotCold, WholeLayersComeFirst) {
  Case c = Make("13b", true, "gpu(8GiB,936GB/s)+(64GiB,60GB/s)");
  c.request.n_gpu_layers = 15;
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_EQ(fleet->n_whole_layers, 15);
  for (size_t l = 0; l < 15; ++l) EXPECT_EQ(NeuronsOf(*fleet, l, 0), 13824);
  EXPECT_LT(NeuronsOf(*fleet, 20, 0), 13824);
  EXPECT_EQ(fleet->plan.layers[15].kv_heads[0].size(), 40);  // then attention
}

TEST(PlanHotCold, TooManyGpuLayersSayHowManyFit) {
  Case c = Make("13b", true, "gpu(6GiB,936GB/s)+(64GiB,60GB/s)");
  c.request.n_gpu_layers = kAllLayers;
  const absl::Status status = c.Plan().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string message(status.message());
  const std::string remedy = "lower --gpu-layers to ";
  ASSERT_THAT(message, HasSubstr(remedy));
  const int64_t fit = std::stoll(message.substr(message.find(remedy) + remedy.size()));
  c.request.n_gpu_layers = fit;
  EXPECT_TRUE(c.Plan().ok()) << fit << ": " << c.Plan().status();
  c.request.n_gpu_layers = fit + 1;  // not with the whole context
  const absl::StatusOr<PlannedFleet> more = c.Plan();
  EXPECT_TRUE(!more.ok() || more->plan.gpu_ctx > 0) << more.status();
  c.hardware = *ParseHardware("(64GiB,60GB/s)");
  EXPECT_THAT(std::string(c.Plan().status().message()), HasSubstr("no GPU"));
}

TEST(PlanHotCold, HeadsOfNoMultipleOf32TakeOneInAGpusCache) {
  for (const int64_t d_head : {128, 100}) {
    Case c = Make("7b", true, "rtx4090+(128GiB,100GB/s)");
    c.shape.config.d_head = d_head;
    const absl::StatusOr<PlannedFleet> fleet = c.Plan();
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    const double all = static_cast<double>(c.request.n_ctx) * 32 * (2 * 2 * 32 * 128);
    EXPECT_NEAR(fleet->ranks[0].kv_bytes, all, 1e-6 * all);
  }
}

// Where the whole context does not fit beside attention, a part of it may.
TEST(PlanHotCold, ALongContextIsSharedWithTheCpus) {
  Case c = Make("7b", true, "rtx4090+2x(128GiB,100GB/s)");
  c.request.n_ctx = 131072;
  c.request.vram_budget_bytes = 8 * kGib;
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_GE(fleet->plan.gpu_ctx, 256);
  EXPECT_LT(fleet->plan.gpu_ctx, 131072);
  const double all = 131072 * c.shape.kv_token_bytes() * 32;
  double held = 0;
  for (const PlannedRank& rank : fleet->ranks) held += rank.kv_bytes;
  EXPECT_NEAR(held, all, 1e-6 * all);  // once, all ranks together
  for (const LayerPlan& layer : fleet->plan.layers) {
    if (layer.kv_heads[0].size() == 0) continue;
    EXPECT_EQ(layer.tail_heads[1], (Range{0, 16}));  // CPUs alike share it alike
    EXPECT_EQ(layer.tail_heads[2], (Range{16, 32}));
  }
  // CPUs that have not the room for half of it take what GPUs have not the room for.
  c.hardware = *ParseHardware("gpu(56GiB,936GB/s)+(24GiB,100GB/s)");
  c.request.vram_budget_bytes = 0;
  ASSERT_TRUE(c.Plan().ok()) << c.Plan().status();
  EXPECT_GT(c.Plan()->plan.gpu_ctx, 131072 / 2);
  c.request.shares_memory = false;
  EXPECT_FALSE(c.Plan().ok() && c.Plan()->plan.gpu_ctx > 0);
  c.request.shares_memory = true;
  // The same context in memory enough lies in one place.
  c.hardware = *ParseHardware("gpu(192GiB,936GB/s)+(64GiB,60GB/s)");
  EXPECT_EQ(c.Plan()->plan.gpu_ctx, 0);
}

TEST(PlanHotCold, KeepsToTheVramBudget) {
  Case c = Make("70b", true, "rtx4090+(128GiB,60GB/s)");
  c.request.vram_budget_bytes = 16 * kGib;
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_LE(fleet->ranks[0].total_bytes(), 16 * kGib);
  EXPECT_EQ(fleet->plan.ranks[0].memory_bytes, static_cast<int64_t>(16 * kGib));
  c.request.vram_budget_bytes = 25 * kGib;
  EXPECT_THAT(std::string(c.Plan().status().message()), HasSubstr("--vram-budget"));
}

TEST(PlanHotCold, WithoutAProfileIsASplitByLayers) {
  const Case c = Make("70b", false, "rtx4090+2x(64GiB,100GB/s)", "", Sparsity::kOff);
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  const auto n = static_cast<size_t>(fleet->n_whole_layers);
  EXPECT_GT(n, 35u);
  for (size_t l = 0; l < 80; ++l) {
    EXPECT_EQ(NeuronsOf(*fleet, l, 0), l < n ? 28672 : 0) << l;
    EXPECT_EQ(fleet->plan.layers[l].kv_heads[0].size(), l < n ? 8 : 0) << l;
  }
}

TEST(PlanHotCold, UnequalNodesShareByBandwidthAndWithinTheirMemory) {
  const Case c =
      Make("13b", false, "(64GiB,100GB/s)+(64GiB,50GB/s)+(4GiB,100GB/s)", "", Sparsity::kOff);
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_NEAR(
      static_cast<double>(NeuronsOf(*fleet, 0, 0)) / static_cast<double>(NeuronsOf(*fleet, 0, 1)),
      2.0, 0.05);
  EXPECT_LT(NeuronsOf(*fleet, 0, 2), NeuronsOf(*fleet, 0, 0));
}

TEST(PlanHotCold, CpusKeepTheFilesOrderAndShareTheExpectedWork) {
  Case c = Make("7b", true, "2x(64GiB,100GB/s)", "", Sparsity::kExact);
  // The file's first half fires four times as often as the second.
  Profile profile;
  profile.n_tokens = 100;
  LayerProfile layer;
  for (int64_t i = 0; i < c.shape.config.d_ff; ++i) {
    layer.fired.push_back(i < c.shape.config.d_ff / 2 ? 80 : 20);
  }
  profile.layers.assign(c.shape.config.n_layers, layer);
  c.firing = {FiringOfProfile(profile, c.shape), ProfileHash(profile)};
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_EQ(fleet->plan.profile_hash, "");
  EXPECT_LT(NeuronsOf(*fleet, 3, 0), NeuronsOf(*fleet, 3, 1) * 3 / 4);
  EXPECT_NEAR(fleet->plan.layers[3].predicted_us[0], fleet->plan.layers[3].predicted_us[1],
              0.01 * fleet->plan.layers[3].predicted_us[0]);

  // Where one has little memory, neurons are dealt by heat.
  c.hardware = *ParseHardware("(2.5GiB,100GB/s)+(64GiB,100GB/s)");
  c.request.n_ctx = 512;
  const absl::StatusOr<PlannedFleet> tight = c.Plan();
  ASSERT_TRUE(tight.ok()) << tight.status();
  ExpectGood(c, *tight);
  EXPECT_EQ(tight->plan.profile_hash, ProfileHash(profile));
}

TEST(PlanHotCold, GpuLayersNeedAGpuWithAndWithoutAProfile) {
  Case c = Make("7b", true, "(64GiB,60GB/s)");
  for (FiringTable& table : c.firing.tables) {
    for (int32_t i = 0; i < c.shape.config.d_ff; ++i) table.numbers.push_back(i);
  }
  for (const int64_t n : {int64_t{3}, kAllLayers}) {
    c.request.n_gpu_layers = n;
    EXPECT_THAT(std::string(c.Plan().status().message()), HasSubstr("no GPU")) << n;
  }
}

TEST(PlanHotCold, WhatDoesNotFitIsRefusedWithNumbersAndARemedy) {
  const std::string too_small(
      Make("70b", false, "rtx4090+(8GiB,60GB/s)", "", Sparsity::kOff).Plan().status().message());
  EXPECT_THAT(too_small, HasSubstr("GiB"));
  EXPECT_THAT(too_small, HasSubstr("smaller quantization"));
  Case long_context = Make("7b", true, "(16GiB,60GB/s)");
  long_context.request.n_ctx = 100000;
  EXPECT_THAT(std::string(long_context.Plan().status().message()), HasSubstr("--ctx-size"));
}

TEST(PlanHotCold, AGpuDecidesForCpusInModePredict) {
  const Case c = Make("70b", true, "(64GiB,60GB/s)+rtx4090", "described", Sparsity::kPredict);
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ExpectGood(c, *fleet);
  EXPECT_EQ(fleet->plan.layers[0].decider, 1);
  EXPECT_EQ(fleet->ranks[0].predictor_bytes, 0);
  EXPECT_THAT(PlanTable(c.shape, c.hardware, *fleet),
              HasSubstr("rank 1 chooses the CPUs' neurons, too"));
  Case over_grpc = c;
  over_grpc.request.shares_memory = false;
  const absl::StatusOr<PlannedFleet> apart = over_grpc.Plan();
  EXPECT_EQ(apart->plan.layers[0].decider, -1);
  EXPECT_GT(apart->plan.predicted_us, fleet->plan.predicted_us);
  const Case two = Make("70b", true, "(64GiB,60GB/s)+2xrtx4090", "described", Sparsity::kPredict);
  EXPECT_EQ(two.Plan()->plan.layers[0].decider, -1) << "each has a part of the attention";
  const Case cpus = Make("70b", true, "2x(64GiB,60GB/s)", "described", Sparsity::kPredict);
  EXPECT_EQ(cpus.Plan()->plan.layers[0].decider, -1);
}

// README's example: the predictor's bytes are more than a sketch's, but the GPU reads them.
TEST(PlanHotCold, TakesTheFasterModesOfThoseThatAutoOffers) {
  const auto make = [](const std::string& hardware, std::optional<Sparsity> mode) {
    Case c;
    c.shape = *DescribeShape({"7b", "q4_0", true, 0.06});
    c.hardware = *ParseHardware(hardware);
    FiringCurve curve = DefaultCurve(c.shape);
    curve.firing = 0.115;
    c.firing = {FiringOfCurve(c.shape, curve), "described"};
    c.modes = *ChooseModes(c.shape, c.firing.tables, {nullptr, true}, {mode});
    c.request.vram_budget_bytes = 2.4 * 1024 * 1024 * 1024;
    c.request.n_ctx = 512;
    return *c.Plan();
  };
  const PlannedFleet fleet = make("h100+(125GiB,105GB/s)", std::nullopt);
  EXPECT_EQ(fleet.modes[0].mode, Sparsity::kPredict);
  EXPECT_EQ(fleet.plan.predicted_us,
            make("h100+(125GiB,105GB/s)", Sparsity::kPredict).plan.predicted_us);
  EXPECT_LT(fleet.plan.predicted_us,
            make("h100+(125GiB,105GB/s)", Sparsity::kSketch).plan.predicted_us);
  EXPECT_EQ(make("(125GiB,105GB/s)", std::nullopt).modes[0].mode, Sparsity::kSketch)
      << "without a GPU bytes decide";
}

TEST(PlanHotCold, OnlyWhoHasALayersAttentionDecidesAndOnlyForOthers) {
  Case c = Make("70b", true, "gpu(10GiB,1000GB/s)+(64GiB,60GB/s)", "described", Sparsity::kPredict);
  c.request.n_ctx = 8192;
  c.request.n_session_ctx = 128;  // of many sessions: none has a tail
  const absl::StatusOr<PlannedFleet> some = c.Plan();
  ASSERT_TRUE(some.ok()) << some.status();
  ExpectGood(c, *some);
  c.hardware = *ParseHardware("gpu(80GiB,1000GB/s)+(64GiB,60GB/s)");
  const absl::StatusOr<PlannedFleet> all = c.Plan();
  ASSERT_TRUE(all.ok()) << all.status();
  ExpectGood(c, *all);
  for (const absl::StatusOr<PlannedFleet>& fleet : {some, all}) {
    int64_t n_decided = 0;
    for (size_t l = 0; l < fleet->plan.layers.size(); ++l) {
      const LayerPlan& layer = fleet->plan.layers[l];
      n_decided += layer.decider == 0;
      EXPECT_EQ(layer.decider == 0, layer.kv_heads[0].size() > 0 && NeuronsOf(*fleet, l, 1) > 0)
          << l;
    }
    EXPECT_GT(n_decided, 0);
    EXPECT_LT(n_decided, std::ssize(fleet->plan.layers));
  }
}

TEST(PlanHotCold, HotExpertsGetTheFastRank) {
  Case c = Make("mixtral-8x7b", true, "gpu(12GiB,936GB/s)+(64GiB,60GB/s)");
  // A profile in which expert 3 is used four times as often as the others.
  Profile profile;
  profile.n_tokens = 1000;
  LayerProfile layer;
  for (int64_t i = 0; i < c.shape.config.d_ff; ++i) {
    const int64_t expert = i / 14336, rank = i % 14336;
    layer.fired.push_back(
        static_cast<uint32_t>((expert == 3 ? 400 : 100) * (20000 - rank) / 20000));
  }
  profile.layers.assign(32, layer);
  c.firing = {FiringOfProfile(profile, c.shape), ProfileHash(profile)};
  const absl::StatusOr<PlannedFleet> fleet = c.Plan();
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  const std::vector<int32_t> order = HottestFirst(layer);
  int64_t of_hot = 0, others = 0;
  for (const Range& range : FileNeurons(fleet->plan.layers[5], 0, order)) {
    for (int64_t i = range.begin; i < range.end; ++i) ++(i / 14336 == 3 ? of_hot : others);
  }
  EXPECT_GT(of_hot, 14000);          // nearly all of the hot expert
  EXPECT_LT(others, 7 * 14336 / 2);  // and less than half of the rest
}

TEST(PlanTable, ShowsLayersMemoryAndRate) {
  const Case c = Make("70b", true, "rtx4090+2x(64GiB,100GB/s)");
  const PlannedFleet fleet = *c.Plan();
  const std::string table = PlanTable(c.shape, c.hardware, fleet);
  EXPECT_THAT(table, HasSubstr("% of activations"));
  EXPECT_THAT(table, HasSubstr("predict"));
  EXPECT_THAT(table, HasSubstr("rtx4090"));
  EXPECT_THAT(table, HasSubstr("tokens/s"));
}

TEST(PlanSvg, DrawsEveryLayerOfEveryRankAndLabelsItsAxes) {
  const Case c = Make("70b", true, "rtx4090+2x(64GiB,100GB/s)");
  const PlannedFleet fleet = *c.Plan();
  const std::string svg = PlanSvg(c.shape, c.hardware, fleet);
  size_t n_rectangles = 0, n_expected = 1 + 3;  // the ground, the legend
  for (size_t at = 0; (at = svg.find("<rect", at)) != std::string::npos; ++at) ++n_rectangles;
  for (const LayerPlan& layer : fleet.plan.layers) {
    for (const std::vector<Range>& ranges : layer.neurons) n_expected += 1 + ranges.size();
  }
  EXPECT_EQ(n_rectangles, n_expected);
  EXPECT_THAT(svg, HasSubstr(">layer</text>"));
  EXPECT_THAT(svg, HasSubstr("hottest at the top"));
  EXPECT_THAT(svg, HasSubstr("share of the layer's activations"));
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

}  // namespace
}  // namespace thermocline
