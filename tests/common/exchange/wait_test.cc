// Counters and waits between threads; between processes see process_test.cc.
#include "common/exchange/wait.h"

#include <chrono>
#include <thread>
#include <vector>

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

// A lost wake-up would leave both asleep until the timeout.
TEST_P(WaitTest, NoWakeUpIsLostInManyTurns) {
  constexpr uint32_t kTurns = 20'000;
  constexpr int64_t kTimeoutUs = 10'000'000;
  const uint32_t first = 0u - kTurns / 2;  // wraps half way
  Counter ping, pong;
  ping.value = pong.value = first;
  std::thread other([&] {
    for (uint32_t turn = first + 1; turn != first + kTurns + 1; ++turn) {
      ASSERT_EQ(WaitFor(ping, turn, abort_, spin_us(), kTimeoutUs), WaitResult::kReached);
      Advance(pong);
    }
  });
  for (uint32_t turn = first + 1; turn != first + kTurns + 1; ++turn) {
    Advance(ping);
    ASSERT_EQ(WaitFor(pong, turn, abort_, spin_us(), kTimeoutUs), WaitResult::kReached);
  }
  other.join();
}

INSTANTIATE_TEST_SUITE_P(SpinUs, WaitTest, ::testing::Values(0u, 20u, 1000u));

}  // namespace
}  // namespace thermocline
