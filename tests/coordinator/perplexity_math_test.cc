// The statistics against values worked out by hand.
#include "coordinator/cli/perplexity_math.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

TEST(LogSoftmax, ProbabilitiesAddUpToOneAtAnyOffset) {
  for (float offset : {0.0f, 1e4f, -1e4f}) {
    const std::vector<float> logits = {offset, offset + 1, offset - 2};
    float log_probs[3];
    LogSoftmax(logits.data(), 3, log_probs);
    const double sum = 1 + std::exp(1.0) + std::exp(-2.0);
    EXPECT_NEAR(log_probs[0], -std::log(sum), 1e-6);
    EXPECT_NEAR(log_probs[1], 1 - std::log(sum), 1e-6);
    EXPECT_NEAR(log_probs[2], -2 - std::log(sum), 1e-6);
  }
}

TEST(MeanOf, ErrorIsTheStandardErrorAsLlamaCppComputesIt) {
  MeanOf mean;
  for (double x : {1.0, 2.0, 4.0, 5.0}) mean.Add(x);
  EXPECT_DOUBLE_EQ(mean.Mean().value, 3.0);
  // sqrt((mean of squares - square of mean) / (n - 1)) = sqrt((46 / 4 - 9) / 3)
  EXPECT_NEAR(mean.Mean().error, std::sqrt(2.5 / 3), 1e-12);
}

TEST(MeanOf, OneSampleHasNoError) {
  MeanOf mean;
  mean.Add(7);
  EXPECT_EQ(mean.Mean().value, 7);
  EXPECT_EQ(mean.Mean().error, 0);
}

TEST(MeanOf, ASmallSpreadOnALargeMeanIsNotLost) {
  MeanOf mean;
  for (int i = 0; i < 1000; ++i) mean.Add(1e8 + i % 2);
  EXPECT_NEAR(mean.Mean().error, std::sqrt(0.25 / 999), 1e-9);
}

TEST(Perplexity, OfAUniformGuessIsTheNumberOfChoices) {
  MeanOf nll;
  for (int i = 0; i < 10; ++i) nll.Add(std::log(50.0));
  EXPECT_NEAR(Perplexity(nll).value, 50, 1e-9);
  EXPECT_NEAR(Perplexity(nll).error, 0, 1e-9);
}

TEST(Perplexity, ErrorGrowsWithThePerplexity) {
  MeanOf nll;
  nll.Add(1);
  nll.Add(3);
  EXPECT_NEAR(Perplexity(nll).error, std::exp(2.0) * 1.0, 1e-9);  // sqrt(1 / 1) = 1
}

TEST(Percentile, LiesBetweenTheTwoNearestSamples) {
  const std::vector<float> sorted = {0, 10, 20, 30, 40};
  EXPECT_EQ(Percentile(sorted, 0), 0);
  EXPECT_EQ(Percentile(sorted, 0.5), 20);
  EXPECT_EQ(Percentile(sorted, 1), 40);
  EXPECT_NEAR(Percentile(sorted, 0.99), 39.6, 1e-6);
  EXPECT_EQ(Percentile({3}, 0.7), 3);
}

std::vector<float> LogOf(const std::vector<double>& probabilities) {
  std::vector<float> logs;
  for (double p : probabilities) logs.push_back(static_cast<float>(std::log(p)));
  return logs;
}

TEST(Divergence, OfAModelFromItselfIsExactlyZero) {
  const std::vector<float> p = LogOf({0.1, 0.2, 0.3, 0.4});
  Divergence divergence;
  for (int32_t next : {0, 1, 2}) divergence.Add(p.data(), p.data(), 4, next);
  EXPECT_EQ(divergence.MeanKl().value, 0);
  EXPECT_EQ(divergence.LogRatio().value, 0);
  EXPECT_EQ(divergence.TopAgreement().value, 1);
}

TEST(Divergence, IsTakenUnderTheBase) {
  const std::vector<float> base = LogOf({0.5, 0.5}), other = LogOf({0.9, 0.1});
  Divergence divergence;
  divergence.Add(base.data(), other.data(), 2, 1);
  EXPECT_NEAR(divergence.MeanKl().value, 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1),
              1e-6);
  EXPECT_NEAR(divergence.LogRatio().value, std::log(0.5 / 0.1), 1e-6);
}

TEST(Divergence, TokensThatTheBaseRulesOutAddNothing) {
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  const std::vector<float> base = {0, minus_infinity};
  const std::vector<float> other = LogOf({0.5, 0.5});
  Divergence divergence;
  divergence.Add(base.data(), other.data(), 2, 0);
  EXPECT_NEAR(divergence.MeanKl().value, std::log(2.0), 1e-6);
}

TEST(Divergence, CountsEqualFirstChoices) {
  const std::vector<float> a = LogOf({0.6, 0.4}), b = LogOf({0.4, 0.6});
  Divergence divergence;
  for (int i = 0; i < 3; ++i) divergence.Add(a.data(), a.data(), 2, 0);
  divergence.Add(a.data(), b.data(), 2, 0);
  EXPECT_NEAR(divergence.TopAgreement().value, 0.75, 1e-12);
  EXPECT_NEAR(divergence.TopAgreement().error, std::sqrt(0.75 * 0.25 / 3), 1e-12);
  const std::string report = divergence.Report();
  for (const char* name : {"Mean KLD", "Median KLD", "99.0% KLD", "Maximum KLD", "Same top p",
                           "Mean PPL(Q)/PPL(base)"}) {
    EXPECT_THAT(report, HasSubstr(name));
  }
  EXPECT_THAT(report, HasSubstr("75.000 +/- 25.000 %"));
}

}  // namespace
}  // namespace thermocline
