// A GPU rank that has all attention of a layer and chooses, by the layer's predictor, which neurons
// CPU ranks compute: they compute what they would have chosen by themselves.
#include <gtest/gtest.h>

#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr double kBound = 1e-2;  // another order of sums, int8 values that round the other way

class DeviceDecider : public ::testing::TestWithParam<TensorType> {
 protected:
  void SetUp() override {
    TinyLlama model;
    model.type = GetParam();
    model.d_model = 64;
    model.d_ff = 352;
    model.d_head = 32;
    model.n_ctx = 64;
    model.powerinfer = true;
    model.predictor_rank = 32;
    bytes_ = model.Builder().Build();
    file_ = *GgufFile::Parse(bytes_, "tiny");
    options_.n_ctx = 64;
    options_.batch_size = 50;
    options_.max_logit_rows = 50;
    options_.threshold = 0.02f;
    for (int32_t i = 0; i < 20; ++i) tokens_.push_back(i * 29 % 300);
  }

  // A GPU with all attention and two CPU ranks, whose neurons alternate. own: of the GPU.
  Plan PlanOf(int32_t decider, const std::vector<Range>& own) {
    Plan plan = *MakePlan(*file_, {1, 1, 1}, 2);
    plan.ranks[0].kind = RankKind::kGpu;
    for (LayerPlan& layer : plan.layers) {
      const int64_t n_kv_heads = layer.kv_heads.back().end;
      layer.kv_heads = {{0, n_kv_heads}, {}, {}};
      layer.neurons = {own, {{96, 128}, {192, 224}}, {{128, 192}, {224, 352}}};
      if (own.empty()) layer.neurons[1].insert(layer.neurons[1].begin(), {0, 96});
      layer.mode = Sparsity::kPredict;
      layer.decider = decider;
    }
    return plan;
  }
  std::vector<float> Logits(const Plan& plan, int64_t step_tokens = 50) {
    auto fleet = MiniFleet::Create(file_.get(), plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    if (!fleet.ok()) return {};
    const auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    counts_ = (*fleet)->Counts();
    return logits.ok() ? *logits : std::vector<float>();
  }
  // That some neurons were ruled out, and about as many as before.
  void ExpectCounts(const FfnCounts& expected) {
    EXPECT_LT(counts_.computed, counts_.neurons * 9 / 10);
    EXPECT_NEAR(static_cast<double>(counts_.computed), static_cast<double>(expected.computed),
                0.02 * static_cast<double>(expected.computed));
    EXPECT_NEAR(static_cast<double>(counts_.fired), static_cast<double>(expected.fired),
                0.02 * static_cast<double>(expected.fired));
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
  FfnCounts counts_;
};

TEST_P(DeviceDecider, CpuRanksComputeWhatTheyWouldHaveChosen) {
  for (const std::vector<Range>& own : {std::vector<Range>{{0, 96}}, std::vector<Range>()}) {
    const std::vector<float> expected = Logits(PlanOf(-1, own));
    const FfnCounts by_themselves = counts_;
    EXPECT_LT(RelativeDistance(Logits(PlanOf(0, own)), expected), kBound);
    ExpectCounts(by_themselves);
    EXPECT_LT(counts_.bytes, by_themselves.bytes);  // the predictor's fc1 is read once
  }
}

TEST_P(DeviceDecider, StepsOfAnySizeGiveTheSameBits) {
  const Plan plan = PlanOf(0, {{0, 96}});
  const std::vector<float> whole = Logits(plan);
  EXPECT_EQ(Logits(plan, 1), whole);
  EXPECT_EQ(Logits(plan, 7), whole);
  options_.device.step_form = StepForm::kResident;
  EXPECT_EQ(Logits(plan, 1), whole);
}

TEST_P(DeviceDecider, LayersMayDiffer) {
  Plan plan = PlanOf(0, {{0, 96}});
  const std::vector<float> expected = Logits(plan);
  plan.layers[1].decider = -1;
  EXPECT_LT(RelativeDistance(Logits(plan), expected), kBound);
  EXPECT_LT(RelativeDistance(Logits(plan, 1), expected), kBound);
  plan.layers[1].mode = Sparsity::kExact;
  EXPECT_EQ(Logits(plan, 1), Logits(plan));
}

TEST_P(DeviceDecider, TokensThatAskForMoreGetIt) {
  const Plan plan = PlanOf(0, {{0, 96}});
  options_.token_modes = {TokenMode::kOff, TokenMode::kExact};
  const std::vector<float> all = Logits(plan);
  EXPECT_EQ(counts_.computed, counts_.neurons);
  EXPECT_EQ(Logits(plan, 1), all);
  options_.token_modes = {TokenMode::kAsPlanned, TokenMode::kOff, TokenMode::kExact};
  const std::vector<float> mixed = Logits(plan);
  EXPECT_NE(mixed, all);
  EXPECT_EQ(Logits(plan, 1), mixed);
}

// The GPU then computes all neurons, but its own by its own choice.
TEST_P(DeviceDecider, StepsThatStreamAreTheSameWithoutADecider) {
  while (tokens_.size() < 49) tokens_.push_back(tokens_[tokens_.size() - 20]);
  Plan plan = PlanOf(0, {{0, 96}});
  plan.stream_tokens = kMinStreamTokens;
  const std::vector<float> streamed = Logits(plan);
  for (LayerPlan& layer : plan.layers) layer.decider = -1;
  EXPECT_EQ(streamed, Logits(plan));
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceDecider,
                         ::testing::Values(TensorType::kQ4_0, TensorType::kF16),
                         [](const auto& info) { return std::string(type_info(info.param)->name); });

}  // namespace
}  // namespace thermocline::testing
