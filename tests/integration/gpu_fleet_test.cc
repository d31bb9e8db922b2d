// Fleets with a real gpu_worker on the emulated device: how they are planned, what they compute,
// how they fail.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"
#include "fmt/format.h"
#include "tests/testing/mini_fleet.h"

namespace thermocline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int32_t kPromptTokens = 6, kNewTokens = 2;

FleetOptions Options() {
  FleetOptions options;
  options.model_path = THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.gguf";
  options.sparsity.predictor_path =
      THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.predictor";
  options.sparsity.mode = "exact";
  options.worker_binary = THERMOCLINE_BIN_DIR "/cpu_worker";
  options.gpu_worker_binary = THERMOCLINE_BIN_DIR "/gpu_worker";
  options.gpu_device = "emulated";
  options.n_workers = 1;
  options.n_threads = 1;
  options.n_ctx = 64;
  options.batch_size = 8;
  options.max_logit_rows = 8;
  options.stall_timeout_ms = 60000;  // emulated kernels under sanitizers take their time
  return options;
}

std::unique_ptr<Fleet> Start(const FleetOptions& options) {
  auto fleet = Fleet::Start(options, nullptr, nullptr);
  EXPECT_TRUE(fleet.ok()) << fleet.status();
  return fleet.ok() ? *std::move(fleet) : nullptr;
}

std::string ErrorOf(const FleetOptions& options) {
  const auto fleet = Fleet::Start(options, nullptr, nullptr);
  EXPECT_FALSE(fleet.ok());
  return std::string(fleet.status().message());
}

// Logits of a prompt, then of tokens one by one.
std::vector<float> Logits(Fleet& fleet) {
  std::vector<float> logits;
  const auto run = [&](const std::vector<TokenInput>& tokens) {
    const absl::Status status = fleet.Run(tokens);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t row = 0; row < tokens.size(); ++row) {
      const float* values = fleet.logits(static_cast<int32_t>(row));
      logits.insert(logits.end(), values, values + fleet.model().config().n_vocab);
    }
  };
  std::vector<TokenInput> prompt;
  for (int32_t i = 0; i < kPromptTokens; ++i) {
    prompt.push_back({i == 0 ? 1 : 300 + 17 * i, 0, i, true});
  }
  run(prompt);
  for (int32_t i = 0; i < kNewTokens; ++i) run({{900 + 31 * i, 0, kPromptTokens + i, true}});
  return logits;
}

const std::vector<float>& CpuLogits() {
  static const std::vector<float> logits = [] {
    FleetOptions options = Options();
    options.gpu_device = "none";
    return Logits(*Start(options));
  }();
  return logits;
}

TEST(GpuFleet, AllOnTheGpuNeedsNoCpuWorker) {
  const auto fleet = Start(Options());
  ASSERT_NE(fleet, nullptr);
  EXPECT_EQ(fleet->plan().n_ranks(), 1);
  EXPECT_THAT(fleet->devices(), ElementsAre(HasSubstr("emulated")));
  EXPECT_EQ(fleet->n_threads(), 0);
  EXPECT_LT(RelativeDistance(Logits(*fleet), CpuLogits()), 2e-2);
}

FleetOptions TwoLayersOnTheGpu() {
  FleetOptions options = Options();
  options.splits_ffn = false;
  options.n_gpu_layers = 2;
  return options;
}

TEST(GpuFleet, LayersThatAreNotOnTheGpuGoToCpuWorkers) {
  const auto fleet = Start(TwoLayersOnTheGpu());
  ASSERT_NE(fleet, nullptr);
  ASSERT_EQ(fleet->plan().n_ranks(), 2);
  EXPECT_EQ(fleet->plan().ranks[0].device, "emulated");
  EXPECT_EQ(fleet->plan().layers[1].kv_heads[0].size(), 2);
  EXPECT_EQ(fleet->plan().layers[2].kv_heads[0].size(), 0);
}

// In shared memory the device exchanges by itself when it decodes; over a stream its host does.
TEST(GpuFleet, BothCarriersGiveTheSameBits) {
  FleetOptions options = TwoLayersOnTheGpu();
  options.plan_path = ::testing::TempDir() + fmt::format("gpu_carriers.{}.json", getpid());
  {
    FleetOptions any = options;
    any.plan_path = "";
    ASSERT_TRUE(WritePlan(Start(any)->plan(), options.plan_path).ok());
  }
  std::vector<std::vector<float>> logits;
  for (const char* transport : {"shm", "grpc"}) {
    options.transport = transport;
    const auto fleet = Start(options);
    ASSERT_NE(fleet, nullptr);
    logits.push_back(Logits(*fleet));
    TokenInput next = {77, 0, kPromptTokens + kNewTokens, true};
    ASSERT_TRUE(fleet->Run(absl::MakeConstSpan(&next, 1)).ok());
    const int32_t best = BestOf(fleet->logits(0), fleet->model().config().n_vocab).token;
    next.needs_only_best = true;
    ASSERT_TRUE(fleet->Run(absl::MakeConstSpan(&next, 1)).ok());
    EXPECT_EQ(fleet->best(0), best) << transport;
  }
  EXPECT_LT(RelativeDistance(logits[0], CpuLogits()), 2e-2);
  EXPECT_EQ(logits[0], logits[1]);
  std::filesystem::remove(options.plan_path);
}

// What the planner counts for a budget, weights, KV cache, buffers and graphs, is enough for the
// worker.
TEST(GpuFleet, APlanForABudgetFitsInIt) {
  for (const double gib : {0.014, 0.0165, 0.024}) {  // the model takes 0.012, graphs 0.006
    for (const int64_t batch_size : {int64_t{8}, int64_t{64}}) {
      FleetOptions options = Options();
      options.vram_budget_bytes = gib * kGib + (batch_size < 48 ? 0 : 0.034 * kGib);
      options.batch_size = batch_size;
      const auto fleet = Start(options);
      ASSERT_NE(fleet, nullptr) << gib;
      EXPECT_GE(fleet->plan().n_ranks(), 1);
      EXPECT_EQ(fleet->devices().size(), 1u);
    }
  }
}

TEST(GpuFleet, TwoGpusShareTheModel) {
  FleetOptions options = Options();
  options.gpu_device = "emulated,emulated";
  const auto fleet = Start(options);
  ASSERT_NE(fleet, nullptr);
  EXPECT_EQ(fleet->devices().size(), 2u);
  EXPECT_LT(RelativeDistance(Logits(*fleet), CpuLogits()), 2e-2);
}

// Of so few positions that a short prompt goes past them.
TEST(GpuFleet, TheTailOfAContextIsInCpuWorkers) {
  FleetOptions options = Options();
  options.plan_path = ::testing::TempDir() + fmt::format("gpu_tail.{}.json", getpid());
  {
    FleetOptions any = Options();
    any.vram_budget_bytes = 0.0165 * kGib;
    Plan plan = Start(any)->plan();
    ASSERT_EQ(plan.n_ranks(), 2);
    plan.ranks[0].device = "";
    plan.gpu_ctx = 3;
    for (LayerPlan& layer : plan.layers) {
      layer.kv_heads = {{0, 2}, {}};
      layer.tail_heads = {{}, {0, 2}};
    }
    ASSERT_TRUE(WritePlan(plan, options.plan_path).ok());
  }
  const auto fleet = Start(options);
  ASSERT_NE(fleet, nullptr);
  EXPECT_EQ(fleet->plan().gpu_ctx, 3);
  EXPECT_LT(RelativeDistance(Logits(*fleet), CpuLogits()), 2e-2);

  FleetOptions other = options;
  other.n_ctx = other.batch_size = other.max_logit_rows = 3;
  EXPECT_EQ(Start(other)->plan().gpu_ctx, 0);  // no context is so long
  other = options;
  other.gpu_device = "none";  // CPU workers have the room for all of it
  EXPECT_EQ(Start(other)->plan().gpu_ctx, 0);
  other = options;
  other.transport = "grpc";
  EXPECT_THAT(ErrorOf(other), HasSubstr("lower --ctx-size to 3"));
  std::filesystem::remove(options.plan_path);
}

TEST(GpuFleet, AGpuChoosesTheNeuronsOfCpuWorkers) {
  FleetOptions options = Options();
  options.sparsity.mode = "predict";
  options.vram_budget_bytes = 0.0175 * kGib;
  options.n_workers = options.n_threads = 2;
  const auto fleet = Start(options);
  ASSERT_NE(fleet, nullptr);
  Plan plan = fleet->plan();
  ASSERT_EQ(plan.n_ranks(), 3);
  ASSERT_FALSE(plan.layers.back().neurons[2].empty());
  EXPECT_EQ(plan.layers.back().decider, 0);
  FleetOptions on_cpus = options;
  on_cpus.gpu_device = "none";
  EXPECT_LT(RelativeDistance(Logits(*fleet), Logits(*Start(on_cpus))), 2e-2);

  FleetOptions other = options;
  other.transport = "grpc";  // where none can
  EXPECT_EQ(Start(other)->plan().layers.back().decider, -1);
  plan.ranks[0].device = "";
  other.plan_path = ::testing::TempDir() + fmt::format("gpu_decider.{}.json", getpid());
  ASSERT_TRUE(WritePlan(plan, other.plan_path).ok());
  EXPECT_THAT(ErrorOf(other),
              HasSubstr("decides for CPU ranks needs all workers in shared memory"));
  on_cpus.plan_path = other.plan_path;
  EXPECT_EQ(Start(on_cpus)->plan().layers.back().decider, -1);
  std::filesystem::remove(other.plan_path);
}

TEST(GpuFleet, APlansGpuTakesTheChosenDeviceOrNone) {
  const std::string path = ::testing::TempDir() + fmt::format("gpu_fleet.{}.json", getpid());
  FleetOptions options = TwoLayersOnTheGpu();
  Plan plan = Start(options)->plan();
  plan.ranks[0].device = "";
  ASSERT_TRUE(WritePlan(plan, path).ok());
  options.plan_path = path;
  EXPECT_EQ(Start(options)->devices().size(), 1u);
  options.gpu_device = "none";
  const auto without = Start(options);
  ASSERT_NE(without, nullptr);
  EXPECT_TRUE(without->devices().empty());
  EXPECT_LT(RelativeDistance(Logits(*without), CpuLogits()), 2e-2);
  std::filesystem::remove(path);
}

TEST(GpuFleet, AGpuWorkerThatIsKilledIsNamed) {
  const auto fleet = Start(Options());
  ASSERT_NE(fleet, nullptr);
  auto stats = fleet->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_THAT((*stats)[0].device(), HasSubstr("emulated"));
  kill((*stats)[0].pid(), SIGKILL);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (fleet->state().ok() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_THAT(std::string(fleet->state().message()), HasSubstr("was killed by signal 9"));
}

TEST(GpuFleet, WhatCannotBeIsRefusedWithTheRemedy) {
  FleetOptions options = Options();
  options.vram_budget_bytes = 0.0003 * kGib;
  EXPECT_THAT(ErrorOf(options), HasSubstr("raise --vram-budget"));
  options = Options();
  options.f32_activations = true;
  EXPECT_THAT(ErrorOf(options), HasSubstr("--gpu-device none"));
  options = Options();
  options.gpu_device = "cuda:7";
  EXPECT_THAT(ErrorOf(options), HasSubstr("cuda:7"));
  options = Options();
  options.gpu_worker_binary = "/no/such/gpu_worker";
  EXPECT_THAT(ErrorOf(options), HasSubstr("/no/such/gpu_worker"));
}

}  // namespace
}  // namespace thermocline::testing
