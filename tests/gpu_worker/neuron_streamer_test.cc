// Long prompts whose cold neurons GPU ranks read from the file: what they compute is what all ranks
// together compute, and shorter steps do not change by a bit.
#include "gpu_worker/neuron_streamer.h"

#include <gtest/gtest.h>

#include "gpu_worker/device_product.h"
#include "tests/testing/mini_fleet.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

constexpr double kBound = 2e-2;     // relative distance of logits between plans (DESIGN's)
constexpr double kSameSums = 2e-3;  // between prompts that are all GEMMs: rounding to f16 differs
constexpr int64_t kTokens = kGemmTokens + 3;

struct Case {
  const char* name;
  TensorType type;
  const char* activation = "relu";
  bool powerinfer = false;
};

class StreamingFleet {
 public:
  StreamingFleet(const Case& of, int64_t d_ff) : d_ff_(d_ff) {
    TinyLlama model;
    model.type = of.type;
    const bool is_k_type = type_info(of.type)->block_size == 256;
    model.d_model = is_k_type ? 256 : 64;
    model.d_ff = d_ff;
    model.d_head = is_k_type ? 64 : 32;
    model.activation = of.activation;
    model.n_ctx = 64;
    model.powerinfer = of.powerinfer;
    model.predictor_rank = of.powerinfer ? 32 : 0;
    bytes_ = model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, of.name);
    EXPECT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    options_.n_ctx = options_.batch_size = options_.max_logit_rows = 64;
    for (int32_t i = 0; i < kTokens; ++i) tokens_.push_back(i * 29 % 300);
  }

  // kinds: 'g' or 'c' of each rank; shares of neurons. All else is rank `home`'s.
  Plan PlanOf(const std::string& kinds, const std::vector<double>& shares, int64_t stream_tokens,
              size_t home = 0) {
    auto plan = MakePlan(*file_, shares, 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    for (size_t i = 0; i < kinds.size(); ++i) {
      if (kinds[i] == 'g') plan->ranks[i].kind = RankKind::kGpu;
    }
    const auto to_home = [home](std::vector<Range>* parts) {
      const int64_t end = parts->back().end;
      for (size_t i = 0; i < parts->size(); ++i) {
        (*parts)[i] = i < home ? Range{0, 0} : Range{i == home ? 0 : end, end};
      }
    };
    to_home(&plan->vocab);
    for (LayerPlan& layer : plan->layers) to_home(&layer.kv_heads);
    plan->stream_tokens = stream_tokens;
    return *plan;
  }
  std::vector<float> Logits(const Plan& plan, int64_t n_tokens = kTokens) {
    auto fleet = MiniFleet::Create(file_.get(), plan, options_);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    if (!fleet.ok()) return {};
    const auto logits = (*fleet)->Run({tokens_.begin(), tokens_.begin() + n_tokens}, 0, 64);
    EXPECT_TRUE(logits.ok()) << logits.status();
    counts_ = (*fleet)->Counts();
    return logits.ok() ? *logits : std::vector<float>();
  }

  MiniFleetOptions& options() { return options_; }
  const FfnCounts& counts() const { return counts_; }  // of the last logits
  int64_t d_ff() const { return d_ff_; }

 private:
  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  MiniFleetOptions options_;
  std::vector<int32_t> tokens_;
  const int64_t d_ff_;
  FfnCounts counts_;
};

class StreamingModels : public ::testing::TestWithParam<Case> {};

// Of 2,560 neurons two thirds are two chunks, all are three.
TEST_P(StreamingModels, GiveTheLogitsOfAGpuThatHoldsAllNeurons) {
  StreamingFleet fleet(GetParam(), 2560);
  const std::vector<float> on_gpu = fleet.Logits(fleet.PlanOf("g", {1}, 0));
  const auto distance = [&](const Plan& plan) {
    return RelativeDistance(fleet.Logits(plan), on_gpu);
  };
  EXPECT_LT(distance(fleet.PlanOf("gc", {1, 2}, kGemmTokens)), kSameSums);
  EXPECT_LT(distance(fleet.PlanOf("cgcg", {1, 1, 2, 1}, kGemmTokens, 1)), kSameSums);
  Plan cold = fleet.PlanOf("gc", {1, 1}, kGemmTokens);
  for (LayerPlan& layer : cold.layers) layer.neurons = {{}, {{0, fleet.d_ff()}}};
  EXPECT_LT(distance(cold), kSameSums);
}

INSTANTIATE_TEST_SUITE_P(All, StreamingModels,
                         ::testing::Values(Case{"Q4_0Silu", TensorType::kQ4_0, "silu"},
                                           Case{"F16", TensorType::kF16},
                                           Case{"PowerInferQ8_0", TensorType::kQ8_0, "relu", true},
                                           Case{"Q5_KReluRelu", TensorType::kQ5_K, "relu_relu"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Streaming, ChangesShorterStepsByNoBit) {
  StreamingFleet fleet({"Q4_0", TensorType::kQ4_0}, 352);
  const Plan with = fleet.PlanOf("gc", {1, 2}, kGemmTokens, /*home=*/1);
  const Plan without = fleet.PlanOf("gc", {1, 2}, 0, /*home=*/1);
  EXPECT_EQ(fleet.Logits(with, kGemmTokens - 1), fleet.Logits(without, kGemmTokens - 1));
  const std::vector<float> by_cpu = fleet.Logits(without, kGemmTokens);
  const std::vector<float> streamed = fleet.Logits(with, kGemmTokens);
  EXPECT_NE(streamed, by_cpu);
  EXPECT_LT(RelativeDistance(streamed, by_cpu), kBound);
}

TEST(Streaming, LeavesNothingOutInAnyModeAndCountsNothing) {
  StreamingFleet fleet({"Q4_0", TensorType::kQ4_0}, 352);
  Plan plan = fleet.PlanOf("gc", {1, 2}, kGemmTokens, /*home=*/1);
  const std::vector<float> off = fleet.Logits(plan);
  for (LayerPlan& layer : plan.layers) layer.mode = Sparsity::kExact;
  EXPECT_EQ(fleet.Logits(plan), off);
  EXPECT_EQ(fleet.counts().neurons, 0u);
  // Where a threshold rules everything out, the GPU's own neurons go and streamed ones stay.
  fleet.options().threshold = 1e30f;
  for (LayerPlan& layer : plan.layers) layer.mode = Sparsity::kThreshold;
  const std::vector<float> streamed = fleet.Logits(plan);
  plan.stream_tokens = 0;
  EXPECT_NE(streamed, off);
  EXPECT_NE(streamed, fleet.Logits(plan));
}

}  // namespace
}  // namespace thermocline::testing
