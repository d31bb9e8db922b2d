// PowerInfer's own format, predictor and mask rule against logits that a numpy program computed
// (tests/golden/powerinfer/make_powerinfer_golden.py). sparse_forward_test.cc has the rest.
#include <gtest/gtest.h>

#include <cstring>

#include "common/model/predictor.h"
#include "tests/testing/mini_fleet.h"

namespace thermocline::testing {
namespace {

template <typename T>
std::vector<T> Values(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.FindTensor(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  const absl::Span<const uint8_t> bytes = file.TensorBytes(*tensor);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

struct Case {
  const char* name;
  const char* model;
  const char* expected;
};
constexpr Case kCases[] = {
    {"Llama", "powerinfer_llama.gguf", "powerinfer_llama.expected.gguf"},  // Q8_0, then Q4_0
    {"Bamboo", "powerinfer_bamboo.gguf",
     "powerinfer_bamboo.expected.gguf"},  // F32, ReLU on up, too
};

class PowerInferGolden : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string folder = THERMOCLINE_SOURCE_DIR "/tests/golden/powerinfer/";
    auto file = GgufFile::Open(folder + GetParam().model);
    auto expected = GgufFile::Open(folder + GetParam().expected);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(expected.ok()) << expected.status();
    file_ = *std::move(file);
    expected_ = *std::move(expected);
    tokens_ = Values<int32_t>(*expected_, "tokens");
    options_.f32_activations = options_.f32_kv = true;
    options_.n_ctx = 64;
    options_.batch_size = options_.max_logit_rows = 64;
    const auto config = ReadModelConfig(*file_);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto predictor = PredictorOfModel(*file_, *config);
    ASSERT_TRUE(predictor.ok()) << predictor.status();
    options_.threshold = predictor->layers[0].threshold;
  }
  std::vector<float> Logits(Sparsity mode, const std::vector<double>& shares, int64_t step_tokens) {
    absl::StatusOr<Plan> plan = MakePlan(*file_, shares, /*n_threads=*/2);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (LayerPlan& layer : plan->layers) layer.mode = mode;
    auto fleet = MiniFleet::Create(file_.get(), *plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    const auto logits = (*fleet)->Run(tokens_, 0, step_tokens);
    EXPECT_TRUE(logits.ok()) << logits.status();
    counts_ = (*fleet)->Counts();
    return *logits;
  }
  std::unique_ptr<GgufFile> file_, expected_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
  FfnCounts counts_;
};

TEST_P(PowerInferGolden, PredictGivesTheLogitsOfTheMaskRule) {
  const std::vector<float> expected = Values<float>(*expected_, "predict.logits");
  const float computed = Values<float>(*expected_, "predict.computed")[0];
  ASSERT_GT(computed, 0.05);
  ASSERT_LT(computed, 0.60);
  for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
    for (const int64_t step_tokens : {1, 64}) {
      EXPECT_LT(RelativeDistance(Logits(Sparsity::kPredict, shares, step_tokens), expected), 1e-4)
          << shares.size() << " ranks, steps of " << step_tokens;
      // Not one neuron more or fewer.
      EXPECT_FLOAT_EQ(static_cast<float>(counts_.computed) / static_cast<float>(counts_.neurons),
                      computed);
      EXPECT_LT(counts_.fired, counts_.computed);
    }
  }
}

TEST_P(PowerInferGolden, WithoutTheMaskTheLogitsAreOthers) {
  const std::vector<float> predict = Values<float>(*expected_, "predict.logits");
  const std::vector<float> off = Values<float>(*expected_, "off.logits");
  for (const Sparsity mode : {Sparsity::kOff, Sparsity::kExact}) {
    for (const std::vector<double>& shares : {std::vector<double>{1}, {1, 2}}) {
      const std::vector<float> logits = Logits(mode, shares, 64);
      EXPECT_LT(RelativeDistance(logits, off), 1e-4);
      EXPECT_GT(RelativeDistance(logits, predict), 1e-2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PowerInferGolden, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline::testing
