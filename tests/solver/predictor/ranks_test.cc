// Sharing a budget of weights among layers.
#include "solver/predictor/ranks.h"

#include <gtest/gtest.h>

#include "tests/solver/predictor/synthetic_layer.h"

namespace thermocline {
namespace {

// Computed neurons at ranks 32, 64, 96 of a layer with 10 weights a rank.
std::vector<RankChoice> Choices(double a, double b, double c) {
  return {{32, 320, a}, {64, 640, b}, {96, 960, c}};
}

int64_t WeightsOf(const std::vector<std::vector<RankChoice>>& layers,
                  const std::vector<int64_t>& chosen) {
  int64_t sum = 0;
  for (size_t i = 0; i < layers.size(); ++i) sum += layers[i][chosen[i]].n_weights;
  return sum;
}

TEST(ChooseRanksTest, StayWithinTheBudgetAndSpendIt) {
  const std::vector<std::vector<RankChoice>> layers = {Choices(300, 200, 150), Choices(100, 90, 85),
                                                       Choices(500, 400, 390)};
  for (int64_t budget = 960; budget < 3000; budget += 100) {
    const absl::StatusOr<std::vector<int64_t>> chosen = ChooseRanks(layers, budget);
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_LE(WeightsOf(layers, *chosen), budget);
    EXPECT_GT(WeightsOf(layers, *chosen), std::min<int64_t>(budget - 320, 2879));
  }
}

TEST(ChooseRanksTest, LayerThatGainsMostGetsMost) {
  EXPECT_EQ(*ChooseRanks({Choices(300, 200, 150), Choices(100, 90, 85)}, 960),
            (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(*ChooseRanks({Choices(300, 200, 150), Choices(100, 90, 85)}, 1280),
            (std::vector<int64_t>{2, 0}));
}

TEST(ChooseRanksTest, GainThatComesLateIsSeen) {
  EXPECT_EQ(*ChooseRanks({Choices(300, 299, 100), Choices(300, 270, 269)}, 1280),
            (std::vector<int64_t>{2, 0}));
}

TEST(ChooseRanksTest, NothingIsSpentWhereNothingIsGained) {
  EXPECT_EQ(*ChooseRanks({Choices(100, 100, 101)}, 10000), (std::vector<int64_t>{0}));
}

TEST(ChooseRanksTest, TooSmallABudgetIsRefused) {
  const absl::Status status = ChooseRanks({Choices(3, 2, 1), Choices(3, 2, 1)}, 639).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--predictor-budget"), std::string::npos);
}

TEST(MeasureRanksTest, LargerRanksComputeLess) {
  const testing::SyntheticLayer layer = testing::MakeSyntheticLayer(1000, 64, 256, 1);
  const MatrixView samples = layer.samples.view();
  const LowRank start = ClosedForm(samples.rows(0, 800), layer.gate.view(), 64, 1).value();
  const std::vector<RankChoice> choices =
      MeasureRanks(start, samples.rows(800, 1000), layer.gate.view(), 0.95, {8, 32, 64}, 2);
  ASSERT_EQ(choices.size(), 3u);
  EXPECT_EQ(choices[1].rank, 32);
  EXPECT_EQ(choices[1].n_weights, 32 * (64 + 256));
  EXPECT_LT(choices[1].computed, 0.9 * choices[0].computed);
  EXPECT_LT(choices[2].computed, 0.9 * choices[1].computed);
}

}  // namespace
}  // namespace thermocline
