// The best of parts is the best of the whole, whatever values are in it and wherever it is cut.
#include "common/exchange/logit_candidate.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace thermocline {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Best(const std::vector<float>& logits) {
  return BestOf(logits.data(), std::ssize(logits)).token;
}

TEST(LogitCandidateTest, TheLowestTokenOfTheLargestFiniteLogitIsTheBest) {
  EXPECT_EQ(Best({1, 3, 2, 3}), 1);
  EXPECT_EQ(Best({-5, -4, -9}), 1);
  EXPECT_EQ(Best({0.0f, -0.0f}), 0);
  EXPECT_EQ(Best({-0.0f, 0.0f}), 0);
  EXPECT_EQ(Best({kNan, -kInfinity, -1e38f, kNan, kInfinity}), 2);
  EXPECT_EQ(Best({-kInfinity, kNan, kInfinity}), -1);
  EXPECT_EQ(Best({}), -1);
  const std::vector<float> logits = {1, 2};
  EXPECT_EQ(BestOf(logits.data(), 2, 40).token, 41);
}

// As a device leaves them, which has no finite logit to name.
TEST(LogitCandidateTest, OneThatIsNotFiniteIsNone) {
  for (const float none : {kNan, kInfinity, -kInfinity}) {
    EXPECT_TRUE(Beats({-7, 3}, {none, 0}));
    EXPECT_FALSE(Beats({none, 0}, {-7, 3}));
    EXPECT_FALSE(Beats({none, 0}, LogitCandidate()));
  }
}

TEST(LogitCandidateTest, TheBestOfAllPartsIsTheBestOfTheWhole) {
  const float values[] = {kNan, -kInfinity, kInfinity, 0.0f, -0.0f, 1, 1, 2, -3e38f};
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> logits(1 + random() % 12);
    const size_t n_values = 1 + random() % std::size(values);
    for (float& logit : logits) logit = values[random() % n_values];
    LogitCandidate best;
    for (size_t begin = 0; begin < logits.size();) {
      const size_t n = std::min<size_t>(random() % 5, logits.size() - begin);
      const LogitCandidate of_part =
          BestOf(logits.data() + begin, static_cast<int64_t>(n), static_cast<int64_t>(begin));
      if (Beats(of_part, best)) best = of_part;
      begin += n;
    }
    int32_t expected = -1;  // as whole rows are searched
    float largest = -kInfinity;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (!(logits[i] > largest && logits[i] < kInfinity)) continue;
      largest = logits[i];
      expected = static_cast<int32_t>(i);
    }
    ASSERT_EQ(best.token, expected) << "round " << round;
  }
}

}  // namespace
}  // namespace thermocline
