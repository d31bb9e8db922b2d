// Bugs that a CPU would hide, planted in kernels: each becomes an error that names it.
#include "tests/kernels/simt/simt_testing.h"

namespace thermocline::kernels::simt {
namespace {

using testing::Each;

class BugsTest : public SimtTest {
 protected:
  std::vector<int> out_ = std::vector<int>(64);
};

TEST_F(BugsTest, ThreadThatExitsBeforeTheBarrier) {
  expect_error(run({"exit_before_barrier", 1, 64}, emulated::exit_before_barrier, 40),
               ErrorCode::kDivergentBarrier,
               {"kernel exit_before_barrier, block (0, 0, 0): thread (0, 0, 0) waits in",
                "bugs.cu:", "thread (40, 0, 0) has exited"});
  EXPECT_TRUE(run({"exit_before_barrier", 1, 64}, emulated::exit_before_barrier, 64).ok());
}

TEST_F(BugsTest, ThreadsAtTwoBarriers) {
  expect_error(run({"meet_at_two_barriers", 2, 64}, emulated::meet_at_two_barriers, 7),
               ErrorCode::kDivergentBarrier,
               {"thread (0, 0, 0)", "thread (7, 0, 0) in the one at"});
  EXPECT_TRUE(run({"meet_at_two_barriers", 2, 64}, emulated::meet_at_two_barriers, 64).ok());
}

TEST_F(BugsTest, ShuffleWithAnExitedLane) {
  expect_error(run({"shuffle", 1, 32}, emulated::shuffle_with_exited_lane, out_.data()),
               ErrorCode::kExitedLane, {"__shfl_xor_sync", "lane 9 of its warp has exited"});
}

TEST_F(BugsTest, ShuffleWithALaneThatTheBlockLacks) {
  expect_error(run({"shuffle", 1, 8}, emulated::shuffle_with_exited_lane, out_.data()),
               ErrorCode::kExitedLane, {"lane 8 of its warp has exited or is not there"});
}

TEST_F(BugsTest, ShuffleFromALaneOutsideTheMask) {
  expect_error(run({"shuffle", 1, 32}, emulated::shuffle_from_lane_outside_mask, out_.data()),
               ErrorCode::kWarpMismatch, {"reads lane 16", "mask 0000ffff"});
}

TEST_F(BugsTest, ShuffleWhoseMaskLacksItsOwnLane) {
  expect_error(run({"shuffle", 1, 32}, emulated::shuffle_without_own_lane, out_.data()),
               ErrorCode::kWarpMismatch, {"its own lane 16"});
}

TEST_F(BugsTest, LanesMeetInDifferentOperations) {
  expect_error(run({"meet", 1, 32}, emulated::meet_in_two_operations, out_.data()),
               ErrorCode::kWarpMismatch, {"__shfl_xor_sync", "__ballot_sync"});
}

TEST_F(BugsTest, LanesNeverMeet) {
  expect_error(run({"never_meet", 1, 32}, emulated::never_meet, out_.data()),
               ErrorCode::kWarpMismatch, {"mask 0001ffff", "never come"});
}

TEST_F(BugsTest, Trap) {
  expect_error(run({"trap_in_thread", 1, 64}, emulated::trap_in_thread, 33), ErrorCode::kTrap,
               {"thread (33, 0, 0) trapped at", "bugs.cu:"});
  EXPECT_TRUE(run({"trap_in_thread", 1, 64}, emulated::trap_in_thread, 64).ok());
}

TEST_F(BugsTest, TooMuchSharedMemory) {
  expect_error(run({"take_too_much_shared", 1, 32}, emulated::take_too_much_shared, out_.data()),
               ErrorCode::kBadLaunch, {"49156 bytes"});
}

TEST_F(BugsTest, BlocksThatAreNotThereAtOnceCannotWaitForEachOther) {
  unsigned flag = 0;
  expect_error(run({"spin", 2, 32}, emulated::spin_on_other_block, &flag), ErrorCode::kStalled,
               {"kernel spin, block (0, 0, 0)", "cooperative"});
  EXPECT_TRUE(run({"spin", 2, 32, 0, true}, emulated::spin_on_other_block, &flag).ok());
}

TEST_F(BugsTest, ShapesThatNoCardTakes) {
  for (const LaunchShape& shape :
       {LaunchShape{"bad", 1, 1025}, LaunchShape{"bad", 0, 32},
        LaunchShape{"bad", 1, dim3(1, 1, 65)}, LaunchShape{"bad", dim3(1, 65536), 32},
        LaunchShape{"bad", 1, 32, 65537}, LaunchShape{"bad", 17, 1024, 0, true}}) {
    expect_error(run(shape, emulated::exit_before_barrier, 32), ErrorCode::kBadLaunch,
                 {"kernel bad: "});
  }
}

// The runner's stacks and blocks serve on after threads were left in the middle of their work.
TEST_F(BugsTest, RunnerServesOnAfterABug) {
  GridRunner runner;
  const std::atomic<bool> cancelled = false;
  const auto run_body = [&](void (*body)(const void*), int* count) {
    return runner.run({"kernel", 2, 64}, {body, &count, sizeof(count)}, 1000, &cancelled);
  };
  int count = 0;
  for (int round = 1; round <= 20; ++round) {
    EXPECT_FALSE(run_body([](const void*) { emulated::exit_before_barrier(40); }, nullptr).ok());
    const auto body = [](const void* count) {
      emulated::count_plainly(true, *static_cast<int* const*>(count));
    };
    EXPECT_TRUE(run_body(body, &count).ok());
    EXPECT_EQ(count, 128 * round);
  }
}

using BugsDeathTest = BugsTest;

TEST_F(BugsDeathTest, StackThatIsTooSmallEndsTheProcess) {
  EXPECT_DEATH(run({"overrun_stack", 1, 1}, emulated::overrun_stack, 1000, out_.data()), "");
  EXPECT_TRUE(run({"overrun_stack", 1, 1}, emulated::overrun_stack, 3, out_.data()).ok());
}

#if defined(__SANITIZE_ADDRESS__)
TEST_F(BugsDeathTest, AddressSanitizerSeesTheBoundsOfMemory) {
  const auto overrun = [&](int n) {
    run({"overrun_shared", 1, 32}, emulated::overrun_shared, n, out_.data());
  };
  overrun(31);
  EXPECT_DEATH(overrun(32), "heap-buffer-overflow");
  const auto overrun_dynamic = [&](int n) {
    run({"overrun_dynamic", 1, 32, 128}, emulated::overrun_dynamic_shared, n, out_.data());
  };
  overrun_dynamic(31);
  EXPECT_DEATH(overrun_dynamic(32), "heap-buffer-overflow");
  run({"overrun_global", 1, 32}, emulated::overrun_global, 32, out_.data());
  EXPECT_DEATH(run({"overrun_global", 1, 32}, emulated::overrun_global, 33, out_.data()),
               "heap-buffer-overflow");
}
#endif

}  // namespace
}  // namespace thermocline::kernels::simt
