// The step on whole models: what real ones must say, and the contract of numbers on one plan and
// across plans. Ranks are threads (testing/mini_fleet.h); processes are tests/integration.
#include "cpu_worker/forward.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/testing/expected_model.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

int32_t Argmax(const float* logits, int64_t n) {
  return static_cast<int32_t>(std::max_element(logits, logits + n) - logits);
}

// Generates n tokens after `tokens` on an empty cache.
std::vector<int32_t> Greedy(MiniFleet& fleet, const std::vector<int32_t>& tokens, int64_t n) {
  const int64_t n_vocab = fleet.config().n_vocab;
  auto logits = fleet.Run(tokens, 0, 512);
  std::vector<int32_t> generated;
  while (logits.ok()) {
    generated.push_back(Argmax(logits->data() + logits->size() - n_vocab, n_vocab));
    if (static_cast<int64_t>(generated.size()) == n) return generated;
    const int64_t n_past = static_cast<int64_t>(tokens.size() + generated.size()) - 1;
    logits = fleet.Run({generated.back()}, n_past, 1);
  }
  ADD_FAILURE() << logits.status();
  return generated;
}

std::unique_ptr<MiniFleet> Fleet(const GgufFile& file, const std::vector<double>& shares,
                                 int32_t n_threads, const MiniFleetOptions& options) {
  const absl::StatusOr<Plan> plan = MakePlan(file, shares, n_threads);
  EXPECT_TRUE(plan.ok()) << plan.status();
  auto fleet = MiniFleet::Create(&file, *plan, options);
  EXPECT_TRUE(fleet.ok()) << fleet.status();
  return *std::move(fleet);
}

// ---- Real models. Only the first is in the project; the others are tested where they are found.

class RealModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string path = FindModel(GetParam());
    const bool is_shipped = std::string(GetParam()) == "reluctant-13m-q8_0.gguf";
    if (path.empty() && !is_shipped && !RequiresModels()) {
      GTEST_SKIP() << GetParam() << " is not here; THERMOCLINE_MODELS can name its folder";
    }
    ASSERT_FALSE(path.empty()) << GetParam() << " is not in THERMOCLINE_MODELS";
    auto model = LoadExpectedModel(path);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  // Largest relative distance of the logits over the prompts.
  void CheckLogits(MiniFleet& fleet, double bound) {
    for (const ExpectedPrompt& prompt : model_.prompts) {
      std::vector<int32_t> tokens = prompt.tokens;
      tokens.insert(tokens.end(), prompt.greedy.begin(), prompt.greedy.begin() + 16);
      const auto logits = fleet.Run(tokens, 0, 512);
      ASSERT_TRUE(logits.ok()) << logits.status();
      const double distance = RelativeDistance(*logits, prompt.logits);
      EXPECT_LT(distance, bound) << prompt.text;
      std::printf("  %-40.40s relative distance of logits %.2e\n", prompt.text.c_str(), distance);
    }
  }
  ExpectedModel model_;
};

TEST_P(RealModel, LogitsAndGreedyTextAreTheExpectedOnesWithF32) {
  MiniFleetOptions options;
  options.f32_activations = options.f32_kv = true;
  const auto fleet = Fleet(*model_.file, {1}, 2, options);
  CheckLogits(*fleet, 1e-4);
  for (const ExpectedPrompt& prompt : model_.prompts) {
    EXPECT_EQ(Greedy(*fleet, prompt.tokens, 64), prompt.greedy) << prompt.text;
  }
}

TEST_P(RealModel, LogitsAreCloseAndTextIsTheSameUpToANearTieWithInt8) {
  const auto fleet = Fleet(*model_.file, {1}, 2, MiniFleetOptions());
  CheckLogits(*fleet, 2e-2);
  for (const ExpectedPrompt& prompt : model_.prompts) {
    const std::vector<int32_t> greedy = Greedy(*fleet, prompt.tokens, 64);
    for (size_t i = 0; i < greedy.size() && prompt.margin[i] >= 0.1f; ++i) {
      ASSERT_EQ(greedy[i], prompt.greedy[i]) << prompt.text << ", token " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RealModel,
                         ::testing::Values("reluctant-13m-q8_0.gguf", "reluctant-13m-f16.gguf",
                                           "reluctant-110m-q8_0.gguf"),
                         [](const auto& info) { return TestNameOf(info.param); });

// ---- The contract of numbers, on small models of every type.

struct Shape {
  const char* name;
  TensorType type;
  bool f32_activations, f32_kv;
  TinyLlama model;
};

TinyLlama Model(TensorType type, int64_t n_heads, int64_t n_kv_heads, int64_t d_head,
                const char* activation, bool tied) {
  TinyLlama model;
  const bool is_k_type = type_info(type)->block_size == 256;
  model.type = type;
  model.d_model = is_k_type ? 256 : 64;
  model.d_ff = is_k_type ? 512 : 160;
  model.n_heads = n_heads;
  model.n_kv_heads = n_kv_heads;
  model.d_head = d_head;
  model.activation = activation;
  model.tied = tied;
  model.n_ctx = 256;
  model.n_vocab = 333;
  return model;
}

std::vector<Shape> Shapes() {
  return {
      {"Q8_0", TensorType::kQ8_0, false, false, Model(TensorType::kQ8_0, 4, 2, 32, "relu", false)},
      {"Q4_0Tied", TensorType::kQ4_0, false, false,
       Model(TensorType::kQ4_0, 6, 3, 32, "silu", true)},
      {"Q4_K", TensorType::kQ4_K, false, true, Model(TensorType::kQ4_K, 4, 4, 64, "relu", false)},
      {"Q5_K", TensorType::kQ5_K, false, true, Model(TensorType::kQ5_K, 4, 4, 64, "relu", false)},
      {"Q6_K", TensorType::kQ6_K, false, false, Model(TensorType::kQ6_K, 8, 4, 32, "silu", false)},
      {"F16", TensorType::kF16, false, false, Model(TensorType::kF16, 4, 2, 16, "relu", false)},
      {"BF16", TensorType::kBF16, false, true, Model(TensorType::kBF16, 2, 1, 32, "silu", true)},
      {"F32", TensorType::kF32, false, true, Model(TensorType::kF32, 3, 3, 32, "relu", false)},
      {"Q8_0InF32", TensorType::kQ8_0, true, true,
       Model(TensorType::kQ8_0, 4, 2, 32, "silu", false)},
      {"Q4_KInF32", TensorType::kQ4_K, true, true,
       Model(TensorType::kQ4_K, 4, 4, 64, "relu", false)},
  };
}

class Contract : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    bytes_ = GetParam().model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, GetParam().name);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    options_.f32_activations = GetParam().f32_activations;
    options_.f32_kv = GetParam().f32_kv;
    options_.n_ctx = 256;
    options_.batch_size = options_.max_logit_rows = 128;
    for (int32_t i = 0; i < 77; ++i) tokens_.push_back(i * 29 % 300);
  }
  std::vector<float> Logits(const std::vector<double>& shares, int32_t n_threads,
                            int64_t step_tokens, const MiniFleetOptions& options) {
    const auto logits = Fleet(*file_, shares, n_threads, options)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.ok() ? *logits : std::vector<float>();
  }
  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
};

TEST_P(Contract, OnePlanGivesTheSameBitsOnAllIsaLevelsThreadsAndCutsOfThePrompt) {
  for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
    options_.isa = kernels::Isa::kReference;
    const std::vector<float> expected = Logits(shares, 1, 128, options_);
    ASSERT_EQ(expected.size(), tokens_.size() * 333);
    for (const kernels::Isa isa :
         {kernels::Isa::kReference, kernels::Isa::kAvx2, kernels::Isa::kAvx512}) {
      if (!kernels::isa_supported(isa)) continue;
      options_.isa = isa;
      for (const int32_t n_threads : {1, 2, 5}) {
        for (const int64_t step_tokens : {1, 13, 128}) {
          EXPECT_EQ(Logits(shares, n_threads, step_tokens, options_), expected)
              << kernels::ops(isa).name << ", " << n_threads << " threads, steps of " << step_tokens
              << ", " << shares.size() << " ranks";
        }
      }
    }
  }
}

TEST_P(Contract, TheBestIsThatOfWholeRows) {
  for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
    const std::vector<int32_t> expected = BestOfRows(Logits(shares, 1, 128, options_), 333);
    for (const int32_t n_threads : {1, 3, 40}) {  // 40: some have no rows of the output
      const auto fleet = Fleet(*file_, shares, n_threads, options_);
      for (const int64_t step_tokens : {1, 13}) {
        if (n_threads == 40 && step_tokens == 1) continue;  // they'd only meet
        EXPECT_EQ(fleet->RunForBest(tokens_, 0, step_tokens).value(), expected)
            << n_threads << " threads, steps of " << step_tokens << ", " << shares.size()
            << " ranks";
      }
    }
  }
}

TEST_P(Contract, OtherPlansRegroupSumsAndGiveCloseLogits) {
  const double bound = GetParam().f32_activations ? 1e-4 : 2e-2;
  const std::vector<float> expected = Logits({1}, 2, 128, options_);
  for (const std::vector<double>& shares : {std::vector<double>{1, 1},
                                            {1, 1, 1},
                                            {1, 1, 1, 1, 1},
                                            {3, 1},
                                            {1, 5, 2},
                                            {1, 1, 9, 1, 3}}) {
    for (const int64_t step_tokens : {1, 128}) {
      const double distance = RelativeDistance(Logits(shares, 1, step_tokens, options_), expected);
      EXPECT_LT(distance, bound) << shares.size() << " ranks, steps of " << step_tokens;
    }
  }
}

TEST_P(Contract, NeuronsInSeveralRangesOfARankGiveCloseLogits) {
  const std::vector<float> expected = Logits({1}, 1, 128, options_);
  absl::StatusOr<Plan> plan = MakePlan(*file_, {1, 1}, 2);
  ASSERT_TRUE(plan.ok());
  const int64_t d_ff = GetParam().model.d_ff;
  for (LayerPlan& layer : plan->layers) {
    layer.neurons[0] = {{0, 32}, {96, d_ff}};
    layer.neurons[1] = {{32, 96}};
  }
  auto fleet = MiniFleet::Create(file_.get(), *plan, options_);
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  for (const int64_t step_tokens : {1, 128}) {
    const auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_LT(RelativeDistance(*logits, expected), GetParam().f32_activations ? 1e-4 : 2e-2);
  }
}

TEST_P(Contract, ARankSaysThatItWorksInItsProducts) {
  const auto fleet = Fleet(*file_, {1, 1}, 1, options_);
  ASSERT_TRUE(fleet->Run(tokens_, 0, 1).ok());  // attention over one token says nothing
  const auto n_layers = GetParam().model.n_layers * static_cast<int64_t>(tokens_.size());
  for (const int32_t rank : {0, 1}) {
    EXPECT_GE(fleet->segment().heartbeat(rank).value.load(), 3 * n_layers);  // gate, up, down
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Contract, ::testing::ValuesIn(Shapes()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline::testing
