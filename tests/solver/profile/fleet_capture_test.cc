// Captures of fleets of processes: the same over both carriers, whole layers from several ranks,
// and requests that are refused while the fleet goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

constexpr int32_t kTokens = 64;

std::unique_ptr<Fleet> Start(int64_t n_workers, const std::string& transport,
                             const std::string& mode) {
  FleetOptions options;
  options.model_path = THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.gguf";
  options.worker_binary = THERMOCLINE_BIN_DIR "/cpu_worker";
  options.n_threads = 2;
  options.n_workers = n_workers;
  options.transport = transport;
  options.sparsity.mode = mode;
  options.n_ctx = 256;
  auto fleet = Fleet::Start(options, nullptr, nullptr);
  EXPECT_TRUE(fleet.ok()) << fleet.status();
  return fleet.ok() ? *std::move(fleet) : nullptr;
}

void RunTokens(Fleet& fleet) {
  std::vector<TokenInput> tokens;
  for (int32_t i = 0; i < kTokens; ++i) tokens.push_back({i == 0 ? 1 : 300 + 17 * i, 0, i, false});
  const absl::Status status = fleet.Run(tokens);
  ASSERT_TRUE(status.ok()) << status;
}

TEST(FleetCapture, TwoRanksGiveWholeLayersOverBothCarriers) {
  std::vector<std::vector<uint32_t>> fired;
  std::vector<std::vector<float>> samples;
  for (const char* transport : {"shm", "grpc"}) {
    const auto fleet = Start(2, transport, "exact");
    ASSERT_NE(fleet, nullptr);
    const ModelConfig& config = fleet->model().config();
    ASSERT_TRUE(fleet->StartCapture({2, 5}, kTokens, 16).ok());
    RunTokens(*fleet);
    uint64_t n_fired = 0;
    for (int32_t layer = 0; layer < config.n_layers; ++layer) {
      const auto captured = fleet->ReadCapture(layer);
      ASSERT_TRUE(captured.ok()) << captured.status();
      EXPECT_EQ(captured->n_tokens, kTokens);
      EXPECT_EQ(std::ssize(captured->fired), config.d_ff);
      const bool is_sampled = layer == 2 || layer == 5;
      EXPECT_EQ(std::ssize(captured->samples), is_sampled ? 16 * config.d_model : 0);
      n_fired = std::accumulate(captured->fired.begin(), captured->fired.end(), n_fired);
      if (layer == 5) {
        fired.push_back(captured->fired);
        samples.push_back(captured->samples);
      }
    }
    const auto totals = fleet->Totals();
    ASSERT_TRUE(totals.ok()) << totals.status();
    EXPECT_EQ(n_fired, totals->fired);
  }
  EXPECT_EQ(fired[0], fired[1]);
  EXPECT_EQ(samples[0], samples[1]);
}

TEST(FleetCapture, WhatCannotBeIsRefusedAndTheFleetGoesOn) {
  const auto fleet = Start(1, "shm", "off");
  ASSERT_NE(fleet, nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(fleet->ReadCapture(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({8}, kTokens, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({-1}, kTokens, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({1, 1}, kTokens, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({1, 0}, kTokens, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({0}, kTokens, kTokens + 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({0}, 0, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->StartCapture({0}, -1, -1)));
  const absl::Status huge = fleet->StartCapture({0, 1, 2, 3, 4, 5, 6, 7}, 2147483647, 2147483647);
  EXPECT_TRUE(absl::IsResourceExhausted(huge)) << huge;
  EXPECT_THAT(std::string(huge.message()), HasSubstr("GiB"));
  ASSERT_TRUE(fleet->StartCapture({0}, kTokens, 4).ok());
  RunTokens(*fleet);
  EXPECT_TRUE(absl::IsInvalidArgument(fleet->ReadCapture(8).status()));
  EXPECT_TRUE(fleet->ReadCapture(7).ok());
  ASSERT_TRUE(fleet->StartCapture({7}, kTokens, 4).ok());  // another one, from 0 on
  RunTokens(*fleet);
  const auto captured = fleet->ReadCapture(7);
  ASSERT_TRUE(captured.ok()) << captured.status();
  EXPECT_EQ(captured->n_tokens, kTokens);
}

}  // namespace
}  // namespace thermocline
