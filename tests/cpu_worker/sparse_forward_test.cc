// Layers that leave neurons out: what must be the same to the bit, and what is left out. Ranks are
// threads (testing/mini_fleet.h); forward_test.cc has dense layers.
#include <gtest/gtest.h>

#include <algorithm>

#include "cpu_worker/forward.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr int64_t kVocab = 333;

TinyLlama Model(TensorType type) {
  TinyLlama model;
  const bool is_k_type = type_info(type)->block_size == 256;
  model.type = type;
  model.d_model = is_k_type ? 256 : 160;
  model.d_ff = is_k_type ? 512 : 352;
  model.n_heads = 4;
  model.n_kv_heads = 2;
  model.d_head = is_k_type ? 64 : 32;
  model.activation = "relu";
  model.n_ctx = 256;
  model.n_vocab = kVocab;
  return model;
}

struct Case {
  const char* name;
  TensorType type;
  bool f32_activations = false;
  bool powerinfer = false;
};

std::vector<Case> Cases() {
  return {{"Q8_0", TensorType::kQ8_0},
          {"Q4_0", TensorType::kQ4_0},
          {"Q4_K", TensorType::kQ4_K},
          {"Q5_K", TensorType::kQ5_K},
          {"Q6_K", TensorType::kQ6_K},
          {"F16", TensorType::kF16},
          {"BF16", TensorType::kBF16},
          {"F32", TensorType::kF32},
          {"Q8_0InF32", TensorType::kQ8_0, true},
          {"Q4_KInF32", TensorType::kQ4_K, true},
          {"PowerInferQ4_0", TensorType::kQ4_0, false, true},
          {"PowerInferF16", TensorType::kF16, false, true},
          {"PowerInferQ8_0InF32", TensorType::kQ8_0, true, true}};
}

class SparseForward : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    TinyLlama model = Model(GetParam().type);
    model.powerinfer = GetParam().powerinfer;
    model.predictor_rank = GetParam().powerinfer ? 32 : 0;
    d_ff_ = model.d_ff;
    bytes_ = model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, GetParam().name);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    options_.f32_activations = options_.f32_kv = GetParam().f32_activations;
    options_.n_ctx = 256;
    options_.batch_size = options_.max_logit_rows = 64;
    for (int32_t i = 0; i < 24; ++i) tokens_.push_back(i * 29 % 300);
  }
  Plan PlanOf(Sparsity mode, int32_t sketch_bits, const std::vector<double>& shares,
              int32_t n_threads) {
    absl::StatusOr<Plan> plan = MakePlan(*file_, shares, n_threads);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (LayerPlan& layer : plan->layers) {
      layer.mode = mode;
      layer.sketch_bits = sketch_bits;
    }
    return *plan;
  }
  std::vector<float> Logits(const Plan& plan, int64_t step_tokens) {
    auto fleet = MiniFleet::Create(file_.get(), plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    const auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    counts_ = (*fleet)->Counts();
    return logits.ok() ? *logits : std::vector<float>();
  }
  // The same bits whatever the level, the number of threads and the cut of the prompt.
  void CheckContract(Sparsity mode, int32_t sketch_bits) {
    for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
      options_.isa = kernels::Isa::kReference;
      const std::vector<float> expected = Logits(PlanOf(mode, sketch_bits, shares, 1), 64);
      ASSERT_EQ(expected.size(), tokens_.size() * kVocab);
      for (const kernels::Isa isa : {kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
        if (!kernels::isa_supported(isa)) continue;
        options_.isa = isa;
        for (const int32_t n_threads : {1, 3}) {
          for (const int64_t step_tokens : {1, 7}) {
            EXPECT_EQ(Logits(PlanOf(mode, sketch_bits, shares, n_threads), step_tokens), expected)
                << kernels::ops(isa).name << ", " << n_threads << " threads, steps of "
                << step_tokens << ", " << shares.size() << " ranks";
          }
        }
      }
    }
  }
  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
  int64_t d_ff_ = 0;
  FfnCounts counts_;
};

TEST_P(SparseForward, ExactIsOffToTheBit) {
  for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
    const std::vector<float> off = Logits(PlanOf(Sparsity::kOff, 0, shares, 1), 64);
    for (const int32_t n_threads : {1, 2}) {
      for (const int64_t step_tokens : {1, 7, 64}) {
        EXPECT_EQ(Logits(PlanOf(Sparsity::kExact, 0, shares, n_threads), step_tokens), off)
            << n_threads << " threads, steps of " << step_tokens << ", " << shares.size()
            << " ranks";
        EXPECT_EQ(counts_.computed, counts_.neurons);
        EXPECT_LT(counts_.fired, counts_.neurons);
        EXPECT_GT(counts_.fired, 0u);
      }
    }
  }
}

TEST_P(SparseForward, ExactGivesTheSameBitsOnAllLevelsThreadsAndCuts) {
  CheckContract(Sparsity::kExact, 0);
}

TEST_P(SparseForward, SketchGivesTheSameBitsOnAllLevelsThreadsAndCuts) {
  options_.threshold = 0.01f;
  for (const int32_t bits : {1, 2, 3}) {
    CheckContract(Sparsity::kSketch, bits);
    EXPECT_LT(counts_.computed, counts_.neurons * 9 / 10) << "the threshold leaves nothing out";
    EXPECT_GT(counts_.computed, counts_.neurons / 10);
  }
}

TEST_P(SparseForward, ASketchThatRulesNothingOutIsExact) {
  const std::vector<float> exact = Logits(PlanOf(Sparsity::kExact, 0, {1}, 2), 7);
  options_.threshold = -1e30f;
  for (const int32_t bits : {1, 2, 3}) {
    EXPECT_EQ(Logits(PlanOf(Sparsity::kSketch, bits, {1}, 2), 7), exact);
  }
}

TEST_P(SparseForward, TokensMayAskForMoreThanThePlanComputes) {
  const std::vector<float> off = Logits(PlanOf(Sparsity::kOff, 0, {1, 1}, 1), 7);
  options_.threshold = 0.05f;
  EXPECT_NE(Logits(PlanOf(Sparsity::kSketch, 1, {1, 1}, 1), 7), off);
  for (const TokenMode mode : {TokenMode::kOff, TokenMode::kExact}) {
    options_.token_mode = mode;
    for (const int64_t step_tokens : {1, 7}) {
      EXPECT_EQ(Logits(PlanOf(Sparsity::kSketch, 1, {1, 1}, 1), step_tokens), off);
    }
  }
}

TEST_P(SparseForward, AThresholdOnTheGateLeavesOutWhatIsSmall) {
  options_.threshold = 0.0f;
  const std::vector<float> all = Logits(PlanOf(Sparsity::kThreshold, 0, {1}, 2), 7);
  EXPECT_EQ(all, Logits(PlanOf(Sparsity::kOff, 0, {1}, 2), 7));  // |gate| > 0
  options_.threshold = 1e30f;
  const std::vector<float> none = Logits(PlanOf(Sparsity::kThreshold, 0, {1}, 2), 7);
  EXPECT_EQ(counts_.fired, 0u);
  EXPECT_NE(none, all);
}

TEST_P(SparseForward, NeuronsScatteredOverRanksGiveCloseLogits) {
  options_.threshold = -1e30f;  // else a sketch flips where sums differ in their last bits
  Profile profile;
  profile.model_hash = file_->ContentHash();
  profile.layers.resize(2);
  for (LayerProfile& layer : profile.layers) {
    for (int64_t i = 0; i < d_ff_; ++i) layer.fired.push_back(i * 37 % 101);
  }
  const std::vector<float> expected = Logits(PlanOf(Sparsity::kExact, 0, {1}, 1), 64);
  for (const Sparsity mode : {Sparsity::kExact, Sparsity::kSketch}) {
    options_.profile = nullptr;
    Plan plan = PlanOf(mode, mode == Sparsity::kSketch ? 1 : 0, {1, 1, 1}, 2);
    for (LayerPlan& layer : plan.layers) {
      layer.neurons = {{{0, 101}}, {{101, 110}, {200, d_ff_}}, {{110, 200}}};
    }
    plan.profile_hash = ProfileHash(profile);
    options_.profile = &profile;
    for (const int64_t step_tokens : {1, 64}) {
      const double distance = RelativeDistance(Logits(plan, step_tokens), expected);
      EXPECT_LT(distance, GetParam().f32_activations ? 1e-4 : 2e-2);
    }
  }
}

TEST_P(SparseForward, RecallIsMeasuredWithoutChangingTheResult) {
  options_.threshold = 0.02f;
  const Plan plan = PlanOf(Sparsity::kSketch, 1, {1}, 2);
  const std::vector<float> expected = Logits(plan, 7);
  const FfnCounts plain = counts_;
  options_.measures_recall = true;
  for (const int64_t step_tokens : {1, 7}) {
    EXPECT_EQ(Logits(plan, step_tokens), expected);
    EXPECT_EQ(counts_.computed, plain.computed);
    EXPECT_EQ(counts_.fired, plain.fired);
    EXPECT_GT(counts_.missed, 0u);
    EXPECT_GT(counts_.missed_mass, 0.0);
    EXPECT_LT(counts_.missed_mass, counts_.mass);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SparseForward, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

class Predicting : public SparseForward {};

TEST_P(Predicting, GivesTheSameBitsOnAllLevelsThreadsAndCuts) {
  options_.threshold = 0.02f;
  CheckContract(Sparsity::kPredict, 0);
  EXPECT_LT(counts_.computed, counts_.neurons);
  EXPECT_GT(counts_.computed, 0u);
}

TEST_P(Predicting, APredictorThatRulesNothingOutIsExact) {
  options_.threshold = -1e30f;
  EXPECT_EQ(Logits(PlanOf(Sparsity::kPredict, 0, {1, 2}, 2), 7),
            Logits(PlanOf(Sparsity::kExact, 0, {1, 2}, 2), 7));
}

INSTANTIATE_TEST_SUITE_P(Models, Predicting,
                         ::testing::Values(Case{"Q4_0", TensorType::kQ4_0, false, true},
                                           Case{"F16", TensorType::kF16, false, true},
                                           Case{"Q8_0InF32", TensorType::kQ8_0, true, true}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline::testing
