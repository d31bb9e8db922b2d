// Counters and waits between threads; between processes see process_test.cc.
#include "common/exchange/wait.h"

#include <immintrin.h>

#include <chrono>
#include <random>
#include <thread>

#include "gtest/gtest.h"

namespace thermocline {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int64_t kNever = -1;

TEST(CyclicOrder, HoldsAcrossTheWrap) {
  EXPECT_TRUE(at_or_after(5, 5));
  EXPECT_TRUE(at_or_after(6, 5));
  EXPECT_FALSE(at_or_after(5, 6));
  EXPECT_TRUE(at_or_after(1, 0xfffffffe));
  EXPECT_FALSE(at_or_after(0xfffffffe, 1));
}

class WaitTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  uint32_t spin_us() const { return GetParam(); }
  Counter counter_, abort_;
};

TEST_P(WaitTest, ReachedAtOnceWhenAlreadyThere) {
  counter_.value = 3;
  EXPECT_EQ(WaitFor(counter_, 3, abort_, spin_us(), kNever), WaitResult::kReached);
  EXPECT_EQ(WaitFor(counter_, 2, abort_, spin_us(), kNever), WaitResult::kReached);
}

TEST_P(WaitTest, AbortComesBeforeReached) {
  counter_.value = 3;
  abort_.value = 1;
  EXPECT_EQ(WaitFor(counter_, 3, abort_, spin_us(), kNever), WaitResult::kAborted);
}

TEST_P(WaitTest, TimesOutNotEarlyAndLeavesNoSleeper) {
  const auto start = steady_clock::now();
  EXPECT_EQ(WaitFor(counter_, 1, abort_, spin_us(), 20'000), WaitResult::kTimeout);
  EXPECT_GE(steady_clock::now() - start, milliseconds(20));
  EXPECT_EQ(counter_.sleepers, 0u);
}

TEST_P(WaitTest, WakesASleeper) {
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(10));
    Advance(counter_);
  });
  EXPECT_EQ(WaitFor(counter_, 1, abort_, spin_us(), kNever), WaitResult::kReached);
  other.join();
}

// Two threads meet over and over, each a random moment late, so that one often arrives just as the
// other goes to sleep. A lost wake-up would leave one asleep until the timeout.
TEST_P(WaitTest, NoWakeUpIsLostInManyMeetings) {
  const uint32_t n_turns = spin_us() == 0 ? 40'000 : 2'000;  // who spins misses no wake-up
  constexpr uint32_t kMaxPauses = 1000;                      // longer than waking takes
  constexpr int64_t kTimeoutUs = 10'000'000;
  const uint32_t first = 0u - n_turns / 2;  // wraps half way
  Counter counters[2];
  for (Counter& counter : counters) counter.value = first;
  const auto meet = [&](int mine) {
    std::minstd_rand random(mine + 1);
    for (uint32_t turn = 1; turn <= n_turns; ++turn) {
      for (uint32_t pauses = random() % kMaxPauses; pauses > 0; --pauses) _mm_pause();
      Advance(counters[mine]);
      ASSERT_EQ(WaitFor(counters[1 - mine], first + turn, abort_, spin_us(), kTimeoutUs),
                WaitResult::kReached);
    }
  };
  std::thread other(meet, 1);
  meet(0);
  other.join();
}

INSTANTIATE_TEST_SUITE_P(SpinUs, WaitTest, ::testing::Values(0u, 20u, 1000u));

}  // namespace
}  // namespace thermocline
