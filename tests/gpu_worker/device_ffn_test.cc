// Layers of a GPU rank that leave neurons out, on small models: what must be the same to the bit,
// what the CPU's ranks compute, what is left out. The shipped model: device_forward_test.cc.
#include "gpu_worker/device_ffn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr double kBound = 2e-2;  // relative distance of logits between plans (DESIGN's)

struct Case {
  const char* name;
  TensorType type;
  const char* activation = "relu";
  bool powerinfer = false;
};

std::vector<Case> Cases() {
  return {{"Q4_K", TensorType::kQ4_K},
          {"F16ReluRelu", TensorType::kF16, "relu_relu"},
          {"Q6_KReluRelu", TensorType::kQ6_K, "relu_relu"},
          {"Q4_0Silu", TensorType::kQ4_0, "silu"},
          {"PowerInferQ8_0", TensorType::kQ8_0, "relu", true}};
}

class SparseRank : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    TinyLlama model;
    const bool is_k_type = type_info(GetParam().type)->block_size == 256;
    model.type = GetParam().type;
    model.d_model = is_k_type ? 256 : 64;
    model.d_ff = d_ff_ = is_k_type ? 512 : 352;
    model.d_head = is_k_type ? 64 : 32;
    model.activation = GetParam().activation;
    model.n_ctx = 64;
    model.powerinfer = GetParam().powerinfer;
    model.predictor_rank = GetParam().powerinfer ? 32 : 0;
    bytes_ = model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, GetParam().name);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    options_.n_ctx = 64;
    options_.batch_size = options_.max_logit_rows = 16;
    for (int32_t i = 0; i < 7; ++i) tokens_.push_back(i * 29 % 300);
  }

  // kinds: 'g' or 'c' of each rank, which have equal shares.
  std::vector<float> Logits(const std::string& kinds, Sparsity mode, int64_t step_tokens = 16) {
    auto plan = MakePlan(*file_, std::vector<double>(kinds.size(), 1.0), 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i] == 'g') plan->ranks[i].kind = RankKind::kGpu;
    }
    for (LayerPlan& layer : plan->layers) {
      layer.mode = mode;
      layer.sketch_bits = mode == Sparsity::kSketch ? 2 : 0;
    }
    auto fleet = MiniFleet::Create(file_.get(), *plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    if (!fleet.ok()) return {};
    const auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    counts_ = (*fleet)->Counts();
    return logits.ok() ? *logits : std::vector<float>();
  }

  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
  int64_t d_ff_ = 0;
  FfnCounts counts_;
};

TEST_P(SparseRank, ExactIsOffToTheBit) {
  const std::vector<float> off = Logits("g", Sparsity::kOff);
  EXPECT_EQ(counts_.neurons, 0u);
  EXPECT_LT(RelativeDistance(off, Logits("c", Sparsity::kOff)), kBound);
  for (const int64_t step_tokens : {1, 4, 16}) {
    EXPECT_EQ(Logits("g", Sparsity::kExact, step_tokens), off) << "steps of " << step_tokens;
    EXPECT_EQ(counts_.tokens, 2 * tokens_.size());  // of two layers
    EXPECT_EQ(counts_.neurons, counts_.tokens * d_ff_);
    EXPECT_EQ(counts_.computed, counts_.neurons);
  }
  EXPECT_EQ(Logits("g", Sparsity::kSketch), off);
}

TEST_P(SparseRank, ASmallerShareOfNeuronsFiresAsOnTheCpu) {
  Logits("c", Sparsity::kExact, 1);
  const FfnCounts on_cpu = counts_;
  Logits("g", Sparsity::kExact, 1);
  EXPECT_NEAR(static_cast<double>(counts_.fired), static_cast<double>(on_cpu.fired),
              0.01 * static_cast<double>(on_cpu.fired));
  // The CPU counts whole lines of 64 bytes and whole blocks of scales.
  EXPECT_LE(counts_.bytes, on_cpu.bytes);
  EXPECT_GT(counts_.bytes, on_cpu.bytes / 3);
}

TEST_P(SparseRank, AThresholdOnTheGateLeavesOutWhatIsSmall) {
  options_.threshold = 0.0f;
  EXPECT_EQ(Logits("g", Sparsity::kThreshold), Logits("g", Sparsity::kOff));  // |gate| > 0
  options_.threshold = 0.2f;
  const std::vector<float> on_cpu = Logits("c", Sparsity::kThreshold);
  const FfnCounts expected = counts_;
  EXPECT_LT(RelativeDistance(Logits("gc", Sparsity::kThreshold), on_cpu), kBound);
  const std::vector<float> some = Logits("g", Sparsity::kThreshold);
  EXPECT_LT(RelativeDistance(some, on_cpu), kBound);
  EXPECT_NEAR(static_cast<double>(counts_.fired), static_cast<double>(expected.fired),
              0.02 * static_cast<double>(expected.fired));
  EXPECT_EQ(Logits("g", Sparsity::kThreshold, 1), some);
  options_.threshold = 1e30f;
  EXPECT_NE(Logits("g", Sparsity::kThreshold), some);
  EXPECT_EQ(counts_.fired, 0u);
}

TEST_P(SparseRank, TokensMayAskForMoreThanThePlanComputes) {
  options_.threshold = 0.5f;
  const std::vector<float> planned = Logits("g", Sparsity::kThreshold);
  options_.token_mode = TokenMode::kOff;
  EXPECT_NE(Logits("g", Sparsity::kThreshold), planned);
  EXPECT_EQ(counts_.fired, counts_.neurons);
  options_.token_mode = TokenMode::kExact;
  const std::vector<float> exact = Logits("g", Sparsity::kThreshold);
  options_.token_mode = TokenMode::kAsPlanned;
  EXPECT_EQ(exact, Logits("g", Sparsity::kOff));
}

TEST_P(SparseRank, LogitsOfAnyOrderOfRowsAreTheTokens) {
  const std::vector<float> in_order = Logits("g", Sparsity::kOff);
  options_.rotates_logit_rows = true;
  EXPECT_EQ(Logits("g", Sparsity::kOff), in_order);
}

INSTANTIATE_TEST_SUITE_P(Models, SparseRank, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

class PredictingRank : public SparseRank {
 protected:
  // Of fc1 and fc2 in two layers, for one step.
  uint64_t PredictorBytes() const {
    uint64_t n_bytes = 0;
    for (const char* name :
         {"blk.0.fc1.weight", "blk.0.fc2.weight", "blk.1.fc1.weight", "blk.1.fc2.weight"}) {
      n_bytes += (file_->FindTensor(name)->n_bytes + 255) / 256 * 256;
    }
    return n_bytes;
  }
};

TEST_P(PredictingRank, LogitsAreThoseOfCpuRanks) {
  options_.threshold = 0.02f;
  const std::vector<float> on_cpu = Logits("c", Sparsity::kPredict);
  const FfnCounts expected = counts_;
  EXPECT_LT(expected.computed, expected.neurons * 9 / 10) << "the threshold leaves nothing out";
  EXPECT_LT(RelativeDistance(Logits("g", Sparsity::kPredict), on_cpu), kBound);
  EXPECT_NEAR(static_cast<double>(counts_.computed), static_cast<double>(expected.computed),
              0.02 * static_cast<double>(expected.computed));
  EXPECT_NEAR(static_cast<double>(counts_.fired), static_cast<double>(expected.fired),
              0.02 * static_cast<double>(expected.fired));
  EXPECT_LT(RelativeDistance(Logits("gc", Sparsity::kPredict), on_cpu), kBound);
  EXPECT_LT(RelativeDistance(Logits("cg", Sparsity::kPredict), on_cpu), kBound);
}

TEST_P(PredictingRank, ATokensBitsDoNotDependOnTheOthersOfItsStep) {
  options_.threshold = 0.02f;
  const std::vector<float> whole = Logits("gc", Sparsity::kPredict);
  const FfnCounts counts = counts_;
  EXPECT_NE(whole, Logits("gc", Sparsity::kOff));
  EXPECT_EQ(Logits("gc", Sparsity::kPredict, 1), whole);
  EXPECT_EQ(counts_.computed, counts.computed);
  EXPECT_EQ(counts_.fired, counts.fired);
  EXPECT_EQ(Logits("gc", Sparsity::kPredict, 4), whole);
  options_.device.step_form = StepForm::kResident;
  EXPECT_EQ(Logits("gc", Sparsity::kPredict, 1), whole);
  EXPECT_EQ(counts_.computed, counts.computed);
  EXPECT_EQ(counts_.fired, counts.fired);
}

TEST_P(PredictingRank, TokensOfAnyModesMayShareAStep) {
  options_.threshold = 0.02f;
  options_.token_modes = {TokenMode::kAsPlanned, TokenMode::kOff, TokenMode::kAsPlanned,
                          TokenMode::kExact};
  const std::vector<float> whole = Logits("g", Sparsity::kPredict);
  EXPECT_EQ(Logits("g", Sparsity::kPredict, 1), whole);
  EXPECT_LT(RelativeDistance(whole, Logits("c", Sparsity::kPredict)), kBound);
  options_.token_modes = {TokenMode::kOff, TokenMode::kExact};
  EXPECT_EQ(Logits("g", Sparsity::kPredict), Logits("g", Sparsity::kOff));
}

TEST_P(PredictingRank, APredictorThatRulesNothingOutIsExact) {
  options_.threshold = -1e30f;
  const std::vector<float> all = Logits("g", Sparsity::kPredict, 4);
  EXPECT_EQ(counts_.computed, counts_.neurons);
  const FfnCounts predicted = counts_;
  EXPECT_EQ(all, Logits("g", Sparsity::kExact, 4));
  EXPECT_EQ(predicted.bytes, counts_.bytes + 2 * PredictorBytes());  // 7 tokens are 2 steps
}

TEST_P(PredictingRank, WhereNothingIsChosenThePredictorAloneIsRead) {
  options_.threshold = 1e30f;
  Logits("g", Sparsity::kPredict, 4);
  EXPECT_EQ(counts_.computed, 0u);
  EXPECT_EQ(counts_.fired, 0u);
  EXPECT_EQ(counts_.bytes, 2 * PredictorBytes());
}

TEST_P(PredictingRank, ThePredictorIsPartOfTheWeights) {
  const auto config = ReadModelConfig(*file_);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto predictor = PredictorOfModel(*file_, *config);
  ASSERT_TRUE(predictor.ok()) << predictor.status();
  const auto plan = MakePlan(*file_, {1}, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto device = OpenDevice("emulated");
  ASSERT_TRUE(device.ok()) << device.status();
  ShardSpec spec = SpecOfRank(*plan, 0);
  const auto without = DeviceShard::Create(file_.get(), *config, spec, {}, device->get());
  ASSERT_TRUE(without.ok()) << without.status();
  for (ShardSpec::Layer& layer : spec.layers) layer.mode = Sparsity::kPredict;
  const auto with =
      DeviceShard::Create(file_.get(), *config, spec, {}, device->get(), file_.get(), &*predictor);
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ((*with)->weight_bytes() - (*without)->weight_bytes(), PredictorBytes());
  EXPECT_EQ(DeviceShard::Create(file_.get(), *config, spec, {}, device->get()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(Models, PredictingRank,
                         ::testing::Values(Case{"Q4_0", TensorType::kQ4_0, "relu", true},
                                           Case{"F16", TensorType::kF16, "relu", true},
                                           Case{"Q8_0ReluRelu", TensorType::kQ8_0, "relu_relu",
                                                true}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline::testing
