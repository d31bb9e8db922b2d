// Fleets whose long prompts stream the CPU ranks' neurons to a real gpu_worker on the emulated
// device: the text stays, shorter steps stay to the bit.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"
#include "fmt/format.h"
#include "tests/testing/expected_model.h"
#include "tests/testing/mini_fleet.h"

namespace thermocline::testing {
namespace {

class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

constexpr char kModel[] = THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0";
constexpr double kBound = 2e-2;  // relative distance of logits between plans (DESIGN's)
constexpr float kNearTie = 0.1f;
constexpr int32_t kLong = 100, kStreamTokens = 64, kNewTokens = 4;
constexpr int64_t kNeurons = 1536;  // of a layer

class StreamFleet : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = LoadExpectedModel(std::string(kModel) + ".gguf");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const ExpectedPrompt& prompt = model_.prompts.front();
    while (std::ssize(tokens_) < kLong) {
      tokens_.insert(tokens_.end(), prompt.tokens.begin(), prompt.tokens.end());
      tokens_.insert(tokens_.end(), prompt.greedy.begin(), prompt.greedy.end());
    }
    options_.model_path = std::string(kModel) + ".gguf";
    options_.sparsity.predictor_path = std::string(kModel) + ".predictor";
    options_.sparsity.mode = "exact";
    options_.worker_binary = THERMOCLINE_BIN_DIR "/cpu_worker";
    options_.gpu_worker_binary = THERMOCLINE_BIN_DIR "/gpu_worker";
    options_.n_workers = options_.n_threads = 1;
    options_.n_ctx = options_.batch_size = 128;
    options_.stall_timeout_ms = 60000;  // emulated kernels under sanitizers take their time
  }

  // To n ranks from the first one on.
  static void Deal(const Range& run, int32_t first, int32_t n, LayerPlan* layer) {
    for (int32_t i = 0; i < n; ++i) {
      layer->neurons[first + i] = {
          {run.begin + run.size() * i / n, run.begin + run.size() * (i + 1) / n}};
    }
  }
  // GPU ranks have the hotter half of the neurons.
  Plan PlanOf(int32_t n_gpus, int32_t n_cpus, int64_t stream_tokens) {
    auto plan = MakePlan(*model_.file, std::vector<double>(n_gpus + n_cpus, 1.0), 1);
    EXPECT_TRUE(plan.ok()) << plan.status();
    const auto profile = ReadProfile(std::string(kModel) + ".predictor/profile.gguf");
    EXPECT_TRUE(profile.ok()) << profile.status();
    plan->profile_hash = ProfileHash(*profile);
    plan->stream_tokens = stream_tokens;
    for (int32_t rank = 0; rank < n_gpus; ++rank) plan->ranks[rank].kind = RankKind::kGpu;
    for (LayerPlan& layer : plan->layers) {
      const int64_t n_hot = n_gpus > 0 ? kNeurons / 2 : 0;
      Deal({0, n_hot}, 0, n_gpus, &layer);
      Deal({n_hot, kNeurons}, n_gpus, n_cpus, &layer);
    }
    return *plan;
  }
  std::unique_ptr<Fleet> Start(const Plan& plan) {
    const std::string path = ::testing::TempDir() + fmt::format("stream_fleet.{}.json", getpid());
    EXPECT_TRUE(WritePlan(plan, path).ok());
    options_.plan_path = path;
    auto fleet = Fleet::Start(options_, nullptr, nullptr);
    std::filesystem::remove(path);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    return fleet.ok() ? *std::move(fleet) : nullptr;
  }
  std::unique_ptr<Fleet> StartOnGpus(const Plan& plan) {
    const int64_t n_gpus =
        std::count_if(plan.ranks.begin(), plan.ranks.end(),
                      [](const RankPlan& rank) { return rank.kind == RankKind::kGpu; });
    options_.gpu_device = n_gpus == 2 ? "emulated,emulated" : "emulated";
    auto fleet = Start(plan);
    EXPECT_EQ(std::ssize(fleet->devices()), n_gpus);
    return fleet;
  }
  // Of the last token.
  std::vector<float> Run(Fleet& fleet, const std::vector<int32_t>& tokens, int32_t n_past = 0) {
    std::vector<TokenInput> step;
    for (size_t i = 0; i < tokens.size(); ++i) {
      step.push_back({tokens[i], 0, n_past + static_cast<int32_t>(i), i + 1 == tokens.size()});
    }
    const absl::Status status = fleet.Run(step);
    EXPECT_TRUE(status.ok()) << status;
    const float* logits = fleet.logits(0);
    return {logits, logits + fleet.model().config().n_vocab};
  }
  std::vector<int32_t> Prompt(int32_t n_tokens) {
    return {tokens_.begin(), tokens_.begin() + n_tokens};
  }
  // A prompt's logits, then those of the tokens that the CPUs' text goes on with.
  void ExpectTextOfCpus(Fleet& fleet) {
    options_.gpu_device = "none";
    const auto cpus = Start(PlanOf(0, 1, 0));
    ASSERT_NE(cpus, nullptr);
    std::vector<int32_t> next = Prompt(kLong);
    for (int32_t i = 0, n_past = 0; i <= kNewTokens; ++i) {
      const std::vector<float> expected = Run(*cpus, next, n_past);
      const std::vector<float> actual = Run(fleet, next, n_past);
      EXPECT_LT(RelativeDistance(actual, expected), kBound) << "new token " << i;
      n_past += static_cast<int32_t>(next.size());
      const auto best = std::max_element(expected.begin(), expected.end());
      next = {static_cast<int32_t>(best - expected.begin())};
      std::vector<float> others = expected;
      others[next[0]] = -1e30f;
      if (*best - *std::max_element(others.begin(), others.end()) < kNearTie) continue;
      EXPECT_EQ(std::max_element(actual.begin(), actual.end()) - actual.begin(), next[0]);
    }
  }

  ExpectedModel model_;
  std::vector<int32_t> tokens_;
  FleetOptions options_;
};

TEST_F(StreamFleet, LongPromptsGiveTheTextOfCpus) {
  const auto fleet = StartOnGpus(PlanOf(1, 2, kStreamTokens));
  ASSERT_NE(fleet, nullptr);
  ExpectTextOfCpus(*fleet);
}

TEST_F(StreamFleet, TwoGpusShareWhatIsStreamed) {
  const auto fleet = StartOnGpus(PlanOf(2, 1, kStreamTokens));
  ASSERT_NE(fleet, nullptr);
  ExpectTextOfCpus(*fleet);
}

TEST_F(StreamFleet, OnlyStepsOfSoManyTokensStreamOverEitherCarrier) {
  const auto without = StartOnGpus(PlanOf(1, 1, 0)),
             with = StartOnGpus(PlanOf(1, 1, kStreamTokens));
  ASSERT_TRUE(with != nullptr && without != nullptr);
  EXPECT_EQ(Run(*with, Prompt(kStreamTokens - 1)), Run(*without, Prompt(kStreamTokens - 1)));
  const std::vector<float> streamed = Run(*with, Prompt(kStreamTokens));
  EXPECT_NE(streamed, Run(*without, Prompt(kStreamTokens)));
  options_.transport = "grpc";
  EXPECT_EQ(Run(*StartOnGpus(PlanOf(1, 1, kStreamTokens)), Prompt(kStreamTokens)), streamed);
}

TEST_F(StreamFleet, StreamsNothingWithoutADeviceOrWithSmallerSteps) {
  const Plan plan = PlanOf(1, 1, kStreamTokens);
  options_.gpu_device = "none";
  EXPECT_EQ(Start(plan)->plan().stream_tokens, 0);
  options_.batch_size = kStreamTokens - 1;
  EXPECT_EQ(StartOnGpus(plan)->plan().stream_tokens, 0);
}

}  // namespace
}  // namespace thermocline::testing
