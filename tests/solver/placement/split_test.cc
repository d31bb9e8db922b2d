#include "solver/placement/split.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "tests/testing/dense_plan.h"

namespace thermocline {
namespace {

using testing::SplitDense;

ModelConfig Config(int64_t n_kv_heads, int64_t d_head, int64_t d_ff) {
  ModelConfig config;
  config.n_layers = 2;
  config.d_model = 64;
  config.d_ff = d_ff;
  config.n_heads = 2 * n_kv_heads;
  config.n_kv_heads = n_kv_heads;
  config.d_head = d_head;
  config.n_vocab = 997;
  return config;
}

std::vector<RankPlan> Ranks(size_t n) { return std::vector<RankPlan>(n); }

TEST(DenseSplit, GivesEveryRankItsShareOfNeuronsUpToOneUnit) {
  const std::vector<double> shares = {5, 1, 3, 1};
  const absl::StatusOr<Plan> plan = SplitDense(Config(16, 32, 3200), "h", Ranks(4), shares);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    const double got = static_cast<double>(plan->layers[0].neurons[rank][0].size());
    EXPECT_LT(std::abs(got - 3200 * shares[rank] / 10), kNeuronUnit) << rank;
  }
}

TEST(DenseSplit, MoreRanksThanKvHeadsLeavesSomeWithNeuronsAndVocabularyOnly) {
  const absl::StatusOr<Plan> plan = SplitDense(Config(2, 64, 320), "h", Ranks(5), {1, 1, 1, 1, 1});
  ASSERT_TRUE(plan.ok()) << plan.status();
  int with_heads = 0;
  for (size_t rank = 0; rank < 5; ++rank) {
    with_heads += plan->layers[0].kv_heads[rank].size() > 0 ? 1 : 0;
    EXPECT_FALSE(plan->layers[0].neurons[rank].empty());
    EXPECT_GT(plan->vocab[rank].size(), 0);
  }
  EXPECT_EQ(with_heads, 2);
}

TEST(DenseSplit, CutsHeadsWhereTheirColumnsAreAMultipleOf32) {
  ModelConfig config = Config(16, 100, 320);
  config.n_heads = 16;  // columns of one head: 100, so units of eight heads
  EXPECT_EQ(config.kv_heads_per_unit(), 8);
  const absl::StatusOr<Plan> plan = SplitDense(config, "h", Ranks(3), {1, 1, 1});
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const Range& range : plan->layers[0].kv_heads) EXPECT_EQ(range.size() % 8, 0);
}

TEST(DenseSplit, RandomSharesGiveCompletePlans) {
  std::mt19937 rng(1);
  for (int i = 0; i < 300; ++i) {
    const size_t n_ranks = 1 + rng() % 12;
    std::vector<double> shares;
    for (size_t rank = 0; rank < n_ranks; ++rank) shares.push_back(0.01 + rng() % 1000);
    const ModelConfig config = Config(1 + rng() % 9, 32, 32 * (1 + rng() % 40));
    const absl::StatusOr<Plan> plan = SplitDense(config, "h", Ranks(n_ranks), shares);
    EXPECT_TRUE(plan.ok()) << plan.status();  // SplitDense checks its own plan
  }
}

TEST(SplitByWork, CutsWhereTheWorkIsNotTheCount) {
  // The first quarter is as much work as all the rest.
  std::vector<double> work(1024, 1.0);
  std::fill(work.begin(), work.begin() + 256, 3.0);
  EXPECT_EQ(SplitByWork(work, 32, {1, 1}), (std::vector<Range>{{0, 256}, {256, 1024}}));
  EXPECT_EQ(SplitByWork(work, 32, {3, 0, 1}),
            (std::vector<Range>{{0, 640}, {640, 640}, {640, 1024}}));
}

TEST(SplitByWork, CutsAsNearAsUnitsAllow) {
  std::mt19937 rng(3);
  for (int i = 0; i < 200; ++i) {
    std::vector<double> work(32 * (1 + rng() % 40) - rng() % 32);
    for (double& w : work) w = static_cast<double>(rng() % 100);
    std::vector<double> shares;
    for (size_t r = 0; r <= rng() % 6; ++r) shares.push_back(1 + rng() % 9);
    const std::vector<Range> cuts = SplitByWork(work, 32, shares);
    ASSERT_EQ(cuts.size(), shares.size());
    const double all = std::accumulate(work.begin(), work.end(), 0.0);
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    double share = 0;
    int64_t begin = 0;
    for (size_t r = 0; r < cuts.size(); ++r) {
      EXPECT_EQ(cuts[r].begin, begin);
      begin = cuts[r].end;
      share += shares[r];
      const double before = std::accumulate(work.begin(), work.begin() + begin, 0.0);
      // No other cut is nearer, but where the rank before ends behind it.
      const double distance = std::fabs(before - all * share / sum);
      for (int64_t cut = cuts[r].begin; cut <= static_cast<int64_t>(work.size()); cut += 32) {
        const double other = std::accumulate(work.begin(), work.begin() + cut, 0.0);
        if (r + 1 == cuts.size()) continue;
        EXPECT_LE(distance, std::fabs(other - all * share / sum) + 1e-6);
      }
      EXPECT_TRUE(begin % 32 == 0 || begin == static_cast<int64_t>(work.size()));
    }
    EXPECT_EQ(begin, static_cast<int64_t>(work.size()));
  }
}

TEST(SplitByWork, WithoutAnyWorkCounts) {
  EXPECT_EQ(SplitByWork(std::vector<double>(128, 0.0), 32, {1, 1}),
            (std::vector<Range>{{0, 64}, {64, 128}}));
}

}  // namespace
}  // namespace thermocline
