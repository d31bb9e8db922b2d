// From how many tokens on prompts stream, on plans that can be computed by hand.
#include "solver/placement/stream_tokens.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

constexpr double kNeuronBytes = 3000, kWeights = 3 * 1000.0;  // of a neuron

class StreamTokens : public ::testing::Test {
 protected:
  // Two layers of 8,000 neurons: 2,000 on a GPU, the others on two nodes.
  void SetUp() override {
    shape_.config.n_layers = 2;
    shape_.config.d_model = 1000;
    shape_.config.d_ff = 8000;
    LayerShape layer;
    layer.gate_bytes = layer.up_bytes = layer.down_bytes = 1000;
    shape_.layers.assign(2, layer);
    Describe("26GB/s");
    fleet_.plan.ranks.resize(3);
    fleet_.plan.ranks[0].kind = RankKind::kGpu;
    LayerPlan plan;
    plan.neurons = {{{0, 2000}}, {{2000, 6000}}, {{6000, 8000}}};
    fleet_.plan.layers.assign(2, plan);
    fleet_.ranks.resize(3);
    for (PlannedRank& rank : fleet_.ranks) rank.limit_bytes = 1e9;
  }
  void Describe(const std::string& link, const std::string& pack = "1000GB/s") {
    const std::string node = "(8GiB,10000GB/s,macs=100GMAC/s,pack=" + pack + ")";
    hardware_ = *ParseHardware("gpu(8GiB,1000GB/s,link=" + link + ")+2x" + node);
  }
  StreamChoice Choose(int64_t batch_size = 512) {
    return ChooseStreaming(shape_, hardware_, fleet_, batch_size);
  }

  ModelShape shape_;
  Hardware hardware_;
  PlannedFleet fleet_;
};

TEST_F(StreamTokens, AreThoseOfWhichTheSlowestCpuRankTakesAsLong) {
  const double cpu = 4000 * kWeights / 100e9;  // a token in a layer
  const double stream =
      6000 * kNeuronBytes / 26e9 + 8000 * (kNeuronBytes + 4 * kWeights) / (1000e9 * kGpuShare);
  const StreamChoice choice = Choose();
  EXPECT_EQ(choice.tokens, std::max<int64_t>(std::ceil(stream / cpu), kMinStreamTokens));
  EXPECT_NEAR(choice.cpu_ms, 2e3 * 512 * cpu, 1e-6);
  EXPECT_NEAR(choice.stream_ms, 2e3 * stream, 1e-6);
  Describe("1GB/s");
  EXPECT_EQ(Choose().tokens,
            std::ceil((stream + 6000 * kNeuronBytes * (1 / 1e9 - 1 / 26e9)) / cpu));
}

TEST_F(StreamTokens, AreFewerTheFasterTheLink) {
  std::vector<int64_t> tokens;
  for (const char* link : {"1GB/s", "2GB/s", "3GB/s"}) {
    Describe(link);
    tokens.push_back(Choose().tokens);
  }
  EXPECT_GT(tokens[0], tokens[1]);
  EXPECT_GT(tokens[1], tokens[2]);
  EXPECT_GT(tokens[2], kMinStreamTokens);
}

TEST_F(StreamTokens, AreBoundByPackingWhereThatIsSlower) {
  Describe("1000GB/s", "1GB/s");
  EXPECT_NEAR(Choose().stream_ms, 2e3 * 6000 * kNeuronBytes / 2e9, 1e-6);
}

TEST_F(StreamTokens, ShareTheLinksOfSeveralGpus) {
  Describe("1GB/s");
  const double alone = Choose().stream_ms;
  hardware_.ranks.insert(hardware_.ranks.begin(), hardware_.ranks[0]);
  fleet_.plan.ranks.insert(fleet_.plan.ranks.begin(), fleet_.plan.ranks[0]);
  fleet_.ranks.insert(fleet_.ranks.begin(), fleet_.ranks[0]);
  for (LayerPlan& layer : fleet_.plan.layers) {
    layer.neurons = {{{0, 1000}}, {{1000, 2000}}, {{2000, 6000}}, {{6000, 8000}}};
  }
  EXPECT_NEAR(Choose().stream_ms, alone / 2, 1e-6);
}

TEST_F(StreamTokens, AreNoneWhereNothingIsToBeStreamed) {
  ASSERT_GT(Choose().tokens, 0);
  EXPECT_EQ(Choose(/*batch_size=*/47).tokens, 0);
  Describe("1GB/s");
  const int64_t tokens = Choose().tokens;
  EXPECT_EQ(Choose(tokens).tokens, tokens);
  EXPECT_EQ(Choose(tokens - 1).tokens, 0);
  for (LayerPlan& layer : fleet_.plan.layers) layer.neurons = {{{0, 8000}}, {}, {}};
  EXPECT_EQ(Choose().tokens, 0);
}

TEST_F(StreamTokens, AreNoneWhereTheFileOrTheDeviceIsNotAtHand) {
  const double file_bytes = 2 * 6000 * kNeuronBytes;
  fleet_.ranks[1].limit_bytes = 0;
  fleet_.ranks[2].limit_bytes = file_bytes + 1000;
  fleet_.ranks[2].kv_bytes = 1000;
  EXPECT_GT(Choose().tokens, 0);
  fleet_.ranks[2].kv_bytes = 1001;
  EXPECT_EQ(Choose().tokens, 0);
  fleet_.ranks[2].kv_bytes = 0;
  fleet_.plan.ranks[0].device = "emulated:sleep=5";
  EXPECT_EQ(Choose().tokens, 0);
  fleet_.plan.ranks[0].device = "cuda:0";
  fleet_.plan.ranks[2].address = "host:1";
  EXPECT_EQ(Choose().tokens, 0);
  fleet_.plan.ranks[2].address = "";
  EXPECT_GT(Choose().tokens, 0);
  hardware_.ranks[1].gmacs = 0;  // not known
  EXPECT_EQ(Choose().tokens, 0);
}

}  // namespace
}  // namespace thermocline
