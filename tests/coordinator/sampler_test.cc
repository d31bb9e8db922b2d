// Which tokens the filters leave, how often each is drawn, and the edges of the numbers.
#include "coordinator/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

namespace thermocline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every filter off; the tests turn on what they look at.
SamplingParams Plain(double temperature, int64_t seed = 1) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  params.seed = seed;
  return params;
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int64_t> CountDraws(const SamplingParams& params, const std::vector<float>& logits,
                                int64_t n_draws) {
  Sampler sampler(params);
  std::vector<int64_t> counts(logits.size());
  for (int64_t i = 0; i < n_draws; ++i) {
    ++counts.at(sampler.Sample(logits.data(), std::ssize(logits)).token);
  }
  return counts;
}

std::set<int32_t> DrawnTokens(const SamplingParams& params, const std::vector<float>& logits) {
  const std::vector<int64_t> counts = CountDraws(params, logits, 3000);
  std::set<int32_t> drawn;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) drawn.insert(static_cast<int32_t>(i));
  }
  return drawn;
}

int32_t SampleOnce(Sampler* sampler, const std::vector<float>& logits) {
  return sampler->Sample(logits.data(), std::ssize(logits)).token;
}

TEST(SamplerTest, GreedyIsTheLowestIdOfTheLargestLogit) {
  Sampler sampler(Plain(0));
  EXPECT_EQ(SampleOnce(&sampler, {1, 3, 2, 3}), 1);
  Sampler negative(Plain(-1));
  EXPECT_EQ(SampleOnce(&negative, {-5, -4}), 1);
}

TEST(SamplerTest, LogprobIsTheLogSoftmaxOfTheRawLogits) {
  SamplingParams params = Plain(0);
  params.repeat_penalty = 2;
  params.banned = {0};
  params.logprobs = true;
  Sampler sampler(params);
  sampler.Accept(1);
  const std::vector<float> logits = LogitsOf({0.5, 0.3, 0.2});
  const Sampled sampled = sampler.Sample(logits.data(), 3);
  EXPECT_EQ(sampled.token, 2) << "0 is banned, 1 is penalized: 2 log 0.3 < log 0.2";
  EXPECT_NEAR(sampled.logprob.value(), std::log(0.2), 1e-6);
  const std::vector<float> huge = {1e30f, 1e30f};
  params = Plain(0);
  params.logprobs = true;
  EXPECT_NEAR(Sampler(params).Sample(huge.data(), 2).logprob.value(), -std::log(2), 1e-6);
  EXPECT_FALSE(Sampler(Plain(0)).Sample(huge.data(), 2).logprob.has_value()) << "not asked for";
}

TEST(SamplerTest, OnlyGreedyWithoutAnythingElseNeedsOnlyTheBest) {
  EXPECT_TRUE(Plain(0).NeedsOnlyBest());
  SamplingParams params;
  params.temperature = 0;
  EXPECT_TRUE(params.NeedsOnlyBest()) << "other filters keep the best one";
  params.repeat_penalty = 1.1;
  EXPECT_FALSE(params.NeedsOnlyBest());
  params.repeat_last_n = -1;
  EXPECT_FALSE(params.NeedsOnlyBest());
  params.repeat_last_n = 0;
  EXPECT_TRUE(params.NeedsOnlyBest()) << "a penalty for nothing";
  params.banned = {3};
  EXPECT_FALSE(params.NeedsOnlyBest());
  params = Plain(0);
  params.logprobs = true;
  EXPECT_FALSE(params.NeedsOnlyBest());
  EXPECT_FALSE(Plain(0.01).NeedsOnlyBest());
}

// Pearson's statistic of fixed seeds; the bound is chi-square's 0.9999 quantile for 7 degrees of
// freedom, so that one wrong probability in 8 shows and rounding does not.
void ExpectDistribution(const std::vector<int64_t>& counts, const std::vector<double>& expected) {
  int64_t n = 0;
  for (const int64_t count : counts) n += count;
  double statistic = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double mean = expected[i] * static_cast<double>(n);
    if (mean == 0) {
      EXPECT_EQ(counts[i], 0) << i;
      continue;
    }
    statistic += (counts[i] - mean) * (counts[i] - mean) / mean;
  }
  EXPECT_LT(statistic, 29.9);
}

const std::vector<double> kProbabilities = {0.05, 0.3, 0.02, 0.2, 0.13, 0.1, 0.15, 0.05};

std::vector<double> Renormalized(std::vector<double> p, double power) {
  double sum = 0;
  for (double& x : p) sum += x = x > 0 ? std::pow(x, power) : 0;
  for (double& x : p) x /= sum;
  return p;
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  for (const int64_t seed : {1, 2, 3}) {
    ExpectDistribution(CountDraws(Plain(1, seed), LogitsOf(kProbabilities), 100000),
                       kProbabilities);
  }
}

TEST(SamplerTest, TemperatureSharpensAndFlattens) {
  for (const double t : {0.5, 0.8, 2.0}) {
    ExpectDistribution(CountDraws(Plain(t), LogitsOf(kProbabilities), 100000),
                       Renormalized(kProbabilities, 1 / t));
  }
}

TEST(SamplerTest, TinyTemperatureIsTheArgmax) {
  EXPECT_THAT(DrawnTokens(Plain(1e-300), LogitsOf(kProbabilities)), ElementsAre(1));
}

TEST(SamplerTest, TopKKeepsTheKBestAndTheirProportions) {
  SamplingParams params = Plain(1);
  params.top_k = 3;
  ExpectDistribution(CountDraws(params, LogitsOf(kProbabilities), 100000),
                     Renormalized({0, 0.3, 0, 0.2, 0, 0, 0.15, 0}, 1));
  params.top_k = 1;
  EXPECT_THAT(DrawnTokens(params, {1, 3, 2, 3}), ElementsAre(1)) << "the lowest id among equals";
  params.top_k = 100;
  EXPECT_EQ(DrawnTokens(params, LogitsOf(kProbabilities)).size(), 8u);
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  SamplingParams params = Plain(1);
  params.top_p = 0.6;  // 0.3 + 0.2 + 0.15
  ExpectDistribution(CountDraws(params, LogitsOf(kProbabilities), 100000),
                     Renormalized({0, 0.3, 0, 0.2, 0, 0, 0.15, 0}, 1));
  params.top_p = 0;
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1));
  params.top_p = 0.5;
  EXPECT_THAT(DrawnTokens(params, {1, 1, 1, 1}), ElementsAre(0, 1)) << "0.25 + 0.25 reach it";
}

TEST(SamplerTest, TopPCountsProbabilityAmongTheTopKAtTemperatureOne) {
  SamplingParams params = Plain(5);
  params.top_k = 3;    // 0.3, 0.2, 0.15: of their sum 0.46, 0.31, 0.23
  params.top_p = 0.7;  // two of them; of all tokens, or at temperature 5, it would be three
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1, 3));
}

TEST(SamplerTest, TopPWorksOnVocabulariesThatAreSortedInParts) {
  const std::vector<float> flat(5000, 1.0f);
  SamplingParams params = Plain(1);
  params.top_p = 0.5;
  const std::set<int32_t> drawn = DrawnTokens(params, flat);
  EXPECT_LE(*drawn.rbegin(), 2500);
  EXPECT_GT(*drawn.rbegin(), 2300);
}

TEST(SamplerTest, MinPIsRelativeToTheBest) {
  SamplingParams params = Plain(1);
  params.min_p = 0.4;  // at least 0.12
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1, 3, 4, 6));
  params.min_p = 1;
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1));
}

TEST(SamplerTest, MinPDoesNotChangeWhatTopPCounts) {
  SamplingParams params = Plain(1);
  params.min_p = 0.5;  // leaves 0.3, 0.2, 0.15
  params.top_p = 0.5;  // 0.3 + 0.2 of all; of what min-p leaves it would be 0.3 + 0.2, too
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1, 3));
  params.top_p = 0.46;  // of what min-p leaves 0.3 alone would do: 0.3 / 0.65
  EXPECT_THAT(DrawnTokens(params, LogitsOf(kProbabilities)), ElementsAre(1, 3));
}

TEST(SamplerTest, RepeatPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  SamplingParams params = Plain(0);
  params.repeat_penalty = 2;
  Sampler positive(params);
  EXPECT_EQ(SampleOnce(&positive, {3, 2}), 0);
  positive.Accept(0);
  EXPECT_EQ(SampleOnce(&positive, {3, 2}), 1);
  Sampler negative(params);
  negative.Accept(0);
  EXPECT_EQ(SampleOnce(&negative, {-2, -3}), 1);
  negative.Accept(0);  // a second time changes nothing
  EXPECT_EQ(SampleOnce(&negative, {-1, -3}), 0);
}

TEST(SamplerTest, RepeatPenaltyForgetsAfterLastN) {
  SamplingParams params = Plain(0);
  params.repeat_penalty = 2;
  params.repeat_last_n = 2;
  Sampler sampler(params);
  for (const int32_t token : {0, 0, 1}) sampler.Accept(token);
  EXPECT_EQ(SampleOnce(&sampler, {3, 1, 1, 2}), 3);
  sampler.Accept(2);
  EXPECT_EQ(SampleOnce(&sampler, {3, 1, 1, 2}), 0) << "both 0 are out of the window";
  params.repeat_last_n = -1;
  Sampler all(params);
  for (int32_t token = 0; token < 1000; ++token) all.Accept(token);
  EXPECT_EQ(SampleOnce(&all, {3, 1, 1.5}), 0);
  EXPECT_EQ(SampleOnce(&all, std::vector<float>(2000, 1.0f)), 1000);
  params.repeat_last_n = 0;
  Sampler none(params);
  none.Accept(0);
  EXPECT_EQ(SampleOnce(&none, {3, 2}), 0);
}

TEST(SamplerTest, TokensOutsideTheVocabularyAreIgnored) {
  SamplingParams params = Plain(0);
  params.repeat_penalty = 2;
  params.banned = {-1, 7};
  Sampler sampler(params);
  sampler.Accept(-1);
  sampler.Accept(1 << 30);
  EXPECT_EQ(SampleOnce(&sampler, {3, 2}), 0);
}

TEST(SamplerTest, BannedTokensAreNeverChosen) {
  SamplingParams params = Plain(1);
  params.banned = {1, 3};
  EXPECT_THAT(DrawnTokens(params, {0, 9, 0, 9}), ElementsAre(0, 2));
  params.banned = {0, 1};
  Sampler sampler(params);
  EXPECT_EQ(SampleOnce(&sampler, {1, 2}), -1);
}

TEST(SamplerTest, OnlyFiniteLogitsCount) {
  for (const double temperature : {0.0, 1.0}) {
    for (const int64_t top_k : {0, 2}) {
      SamplingParams params = Plain(temperature);
      params.top_k = top_k;
      params.logprobs = true;
      Sampler sampler(params);
      const std::vector<float> one = {kNan, -kInf, 1, kNan, kInf};
      const Sampled sampled = sampler.Sample(one.data(), std::ssize(one));
      EXPECT_EQ(sampled.token, 2);
      EXPECT_EQ(sampled.logprob.value(), 0.0f);
      EXPECT_EQ(SampleOnce(&sampler, {-kInf, kNan, kInf}), -1);
      EXPECT_EQ(SampleOnce(&sampler, {}), -1);
    }
  }
}

TEST(SamplerTest, SameSeedSameTokens) {
  const std::vector<float> logits = LogitsOf(kProbabilities);
  const auto draw = [&](int64_t seed) {
    Sampler sampler(Plain(1, seed));
    std::vector<int32_t> tokens;
    for (int i = 0; i < 100; ++i) tokens.push_back(SampleOnce(&sampler, logits));
    return tokens;
  };
  EXPECT_EQ(draw(42), draw(42));
  EXPECT_NE(draw(42), draw(43));
  EXPECT_EQ(Sampler(Plain(1, 42)).seed(), 42u);
  std::vector<int32_t> tokens = draw(42);
  tokens.resize(8);
  // mt19937_64 is fixed by the standard and the draw is ours, so these hold with every library.
  EXPECT_THAT(tokens, ElementsAre(5, 4, 5, 1, 6, 1, 4, 3));
}

TEST(SamplerTest, RandomSeedIsToldAndCanBeUsedAgain) {
  const Sampler sampler(Plain(1, -1));
  SamplingParams again = Plain(1, static_cast<int64_t>(sampler.seed()));
  EXPECT_TRUE(again.Check().ok());
  EXPECT_EQ(Sampler(again).seed(), sampler.seed());
}

TEST(SamplingParamsTest, CheckNamesTheField) {
  EXPECT_TRUE(SamplingParams().Check().ok());
  const auto expect = [](const char* field, const std::function<void(SamplingParams*)>& spoil) {
    SamplingParams params;
    spoil(&params);
    const absl::Status status = params.Check();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(status.ToString(), HasSubstr(std::string(field) + " is "));
  };
  expect("temperature", [](SamplingParams* p) { p->temperature = kNan; });
  expect("temperature", [](SamplingParams* p) { p->temperature = kInf; });
  expect("top_p", [](SamplingParams* p) { p->top_p = -0.1; });
  expect("top_p", [](SamplingParams* p) { p->top_p = kNan; });
  expect("min_p", [](SamplingParams* p) { p->min_p = 1.1; });
  expect("min_p", [](SamplingParams* p) { p->min_p = kNan; });
  expect("repeat_penalty", [](SamplingParams* p) { p->repeat_penalty = 0; });
  expect("repeat_penalty", [](SamplingParams* p) { p->repeat_penalty = kNan; });
  expect("repeat_last_n", [](SamplingParams* p) { p->repeat_last_n = -2; });
  expect("seed", [](SamplingParams* p) { p->seed = -2; });
}

}  // namespace
}  // namespace thermocline
