#include "cpu_worker/team.h"

#include <gtest/gtest.h>

#include <numeric>

namespace thermocline {
namespace {

class TeamOf : public ::testing::TestWithParam<std::pair<int32_t, uint32_t>> {};

TEST_P(TeamOf, EveryThreadRunsOnceAndAllHaveEndedWhenRunReturns) {
  const auto [n_threads, spin_us] = GetParam();
  Team team(n_threads, spin_us);
  std::vector<int> runs(n_threads, 0);
  for (int i = 0; i < 200; ++i) team.Run([&](int32_t thread) { ++runs[thread]; });
  for (const int n : runs) EXPECT_EQ(n, 200);
}

TEST_P(TeamOf, SyncRunsTheSerialPartOnceBetweenWhatAllWroteBeforeAndReadAfter) {
  const auto [n_threads, spin_us] = GetParam();
  Team team(n_threads, spin_us);
  std::vector<int64_t> parts(n_threads, 0);
  int64_t sum = 0;
  bool ok = true;
  std::vector<char> saw(n_threads, 1);
  team.Run([&](int32_t thread) {
    for (int64_t round = 1; round <= 1000; ++round) {
      parts[thread] = round * (thread + 1);
      team.Sync(thread, [&] { sum = std::accumulate(parts.begin(), parts.end(), int64_t{0}); });
      const int64_t expected = round * n_threads * (n_threads + 1) / 2;
      if (sum != expected) saw[thread] = 0;
      team.Sync(thread);
    }
  });
  for (const char good : saw) ok = ok && good != 0;
  EXPECT_TRUE(ok);
}

TEST_P(TeamOf, PartsCoverEverythingOnceInOrder) {
  Team team(GetParam().first, 0);
  for (const int64_t n : {0, 1, 5, 64, 1001}) {
    int64_t next = 0;
    for (int32_t thread = 0; thread < team.size(); ++thread) {
      const Team::Part part = team.PartOf(n, thread);
      EXPECT_EQ(part.begin, next);
      EXPECT_LE(part.end - part.begin, (n + team.size() - 1) / team.size());
      next = part.end;
    }
    EXPECT_EQ(next, n);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TeamOf,
                         ::testing::Values(std::pair{1, 0u}, std::pair{2, 0u}, std::pair{2, 50u},
                                           std::pair{5, 0u}));

}  // namespace
}  // namespace thermocline
