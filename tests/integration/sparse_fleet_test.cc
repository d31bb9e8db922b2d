// Fleets of real worker processes that leave neurons out: however unequally the ranks share the
// model, the greedy text is one rank's, near-ties aside. Same bits on one plan:
// cpu_worker/sparse_forward_test.cc.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"
#include "fmt/format.h"
#include "tests/integration/programs.h"
#include "tests/testing/dense_plan.h"

namespace thermocline::testing {
namespace {

// As every program does it first.
class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

constexpr int kTokens = 32;
// Other plans sum in another order, and int8 rounds what they sum.
constexpr float kNearTie = 0.1f;

struct Greedy {
  std::vector<int32_t> tokens;
  std::vector<float> margin;  // best logit minus the second
};

// The best token at each step. With `followed`, that text goes on, not the fleet's own: so all of
// its tokens are compared, not only those up to the first that differs.
Greedy Generate(Fleet& fleet, const std::vector<int32_t>& prompt, const Greedy* followed) {
  Greedy greedy;
  std::vector<TokenInput> inputs;
  for (size_t i = 0; i < prompt.size(); ++i) {
    inputs.push_back({prompt[i], 0, static_cast<int32_t>(i), i + 1 == prompt.size()});
  }
  for (int i = 0; i < kTokens; ++i) {
    const absl::Status status = fleet.Run(inputs);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) break;
    const float* row = fleet.logits(0);
    std::vector<float> logits(row, row + fleet.model().config().n_vocab);
    greedy.tokens.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
    greedy.margin.push_back(logits[0] - logits[1]);
    const int32_t next = followed == nullptr ? greedy.tokens[i] : followed->tokens[i];
    inputs = {{next, 0, inputs.back().position + 1, true}};
  }
  return greedy;
}

class SparseFleet : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto model = LoadExpectedModel(ShippedModel());
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    plan_path_ = ::testing::TempDir() + fmt::format("sparse_fleet_test.{}.json", getpid());
  }
  void TearDown() override { std::filesystem::remove(plan_path_); }

  FleetOptions Options(const std::string& mode) const {
    FleetOptions options;
    options.model_path = model_.path;
    options.worker_binary = ProgramPath("cpu_worker");
    options.n_workers = 1;
    options.n_threads = 2;
    options.n_ctx = 256;
    options.sparsity.mode = mode;
    options.sparsity.predictor_path =
        THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.predictor";
    return options;
  }
  // The text of every prompt, or the best tokens along `followed`; and the fleet's plan.
  std::vector<Greedy> Texts(const FleetOptions& options, const std::vector<Greedy>* followed,
                            Plan* plan) {
    auto fleet = Fleet::Start(options, nullptr, nullptr);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    std::vector<Greedy> texts;
    if (!fleet.ok()) return texts;
    *plan = (*fleet)->plan();
    for (size_t i = 0; i < model_.prompts.size(); ++i) {
      texts.push_back(Generate(**fleet, model_.prompts[i].tokens,
                               followed == nullptr ? nullptr : &(*followed)[i]));
    }
    return texts;
  }
  // The modes of `plan`, with these shares.
  Plan Shared(const Plan& plan, const std::vector<double>& shares) {
    const auto config = ReadModelConfig(*model_.file);
    EXPECT_TRUE(config.ok()) << config.status();
    RankPlan rank;
    auto shared =
        SplitDense(*config, plan.model_hash, std::vector<RankPlan>(shares.size(), rank), shares);
    EXPECT_TRUE(shared.ok()) << shared.status();
    for (size_t i = 0; i < plan.layers.size(); ++i) {
      shared->layers[i].mode = plan.layers[i].mode;
      shared->layers[i].sketch_bits = plan.layers[i].sketch_bits;
    }
    return *shared;
  }
  // Wherever one rank is sure, `plan` says the same.
  void ExpectSameText(const Plan& plan, const std::vector<Greedy>& expected) {
    ASSERT_TRUE(WritePlan(plan, plan_path_).ok());
    FleetOptions options = Options("auto");
    options.plan_path = plan_path_;
    Plan used;
    const std::vector<Greedy> texts = Texts(options, &expected, &used);
    EXPECT_TRUE(used == plan) << PlanToJson(used);
    ASSERT_EQ(texts.size(), expected.size());
    int n_compared = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      for (int at = 0; at < kTokens; ++at) {
        if (expected[i].margin[at] < kNearTie) continue;
        EXPECT_EQ(texts[i].tokens[at], expected[i].tokens[at])
            << "prompt " << i << ", token " << at << ", " << plan.n_ranks() << " ranks, margin "
            << expected[i].margin[at];
        ++n_compared;
      }
    }
    EXPECT_GE(n_compared, 100);
  }
  ExpectedModel model_;
  std::string plan_path_;
};

TEST_P(SparseFleet, UnequalRanksGiveOneRanksGreedyText) {
  Plan plan;
  const std::vector<Greedy> expected = Texts(Options(GetParam()), nullptr, &plan);
  ASSERT_EQ(plan.layers[0].mode, *ParseSparsity(GetParam()));
  if (plan.layers[0].mode == Sparsity::kExact) {
    Plan off_plan;
    const std::vector<Greedy> off = Texts(Options("off"), nullptr, &off_plan);
    for (size_t i = 0; i < off.size(); ++i) EXPECT_EQ(expected[i].tokens, off[i].tokens);
  }
  ExpectSameText(Shared(plan, {1, 2}), expected);
  ExpectSameText(Shared(plan, {1, 3, 2}), expected);

  // The hottest eighth of each layer here, the rest there: neurons scattered over the file.
  const auto profile = ReadProfile(Options("auto").sparsity.predictor_path + "/profile.gguf");
  ASSERT_TRUE(profile.ok()) << profile.status();
  Plan hot = Shared(plan, {1, 2});
  hot.profile_hash = ProfileHash(*profile);
  for (LayerPlan& layer : hot.layers) layer.neurons = {{{0, 200}}, {{200, 1536}}};
  ExpectSameText(hot, expected);
  // Cut within quantization blocks, and computed in full all the same.
  if (plan.layers[0].mode != Sparsity::kExact) return;
  for (LayerPlan& layer : hot.layers) layer.mode = Sparsity::kOff;
  ExpectSameText(hot, expected);
}

INSTANTIATE_TEST_SUITE_P(Modes, SparseFleet, ::testing::Values("exact", "predict", "sketch"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace thermocline::testing
