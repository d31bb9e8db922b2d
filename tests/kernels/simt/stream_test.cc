// Streams, events and the device's error.
#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/simt/atomics.h"
#include "tests/kernels/simt/simt_testing.h"

namespace thermocline::kernels::simt {
namespace {

using std::chrono::milliseconds;

class StreamTest : public SimtTest {
 protected:
  Device device_{{.stall_deadline_us = 10'000'000}};
  Stream stream_{&device_};
};

TEST_F(StreamTest, WorkHappensInOrder) {
  std::vector<int> values(100, 1), sums(100), copy(100);
  stream_.fill(values.data(), 0, 200);  // the first half of them
  launch(&stream_, {"scan", 1, 128, 512}, emulated::scan, values.data(), 100, sums.data());
  stream_.copy(copy.data(), sums.data(), 400);
  int last = 0;
  stream_.call([&] { last = copy[99]; });
  EXPECT_TRUE(stream_.synchronize().ok());
  EXPECT_EQ(copy[49], 0);
  EXPECT_EQ(last, 50);
}

TEST_F(StreamTest, CallsReturnBeforeTheWorkIsDone) {
  unsigned flag = 0;
  EXPECT_EQ(launch(&stream_, {"answer", 1, 1}, emulated::answer, &flag, 1), ErrorCode::kOk);
  EXPECT_FALSE(stream_.idle());
  store_release(&flag, 1);
  EXPECT_TRUE(stream_.synchronize().ok());
  EXPECT_TRUE(stream_.idle());
  EXPECT_EQ(flag, 2);
}

TEST_F(StreamTest, WhatIsCapturedIsDoneAsOftenAsItIsLaunched) {
  std::vector<int> values(100, 1), sums(100);
  int n_calls = 0;
  stream_.begin_capture();
  launch(&stream_, {"scan", 1, 128, 512}, emulated::scan, values.data(), 100, sums.data());
  stream_.copy(values.data(), sums.data(), 400);
  stream_.call([&] { ++n_calls; });
  const auto graph = stream_.end_capture();
  EXPECT_TRUE(stream_.synchronize().ok());
  EXPECT_EQ(n_calls, 0);
  for (int i = 0; i < 3; ++i) stream_.launch(graph);
  EXPECT_TRUE(stream_.synchronize().ok());
  EXPECT_EQ(n_calls, 3);
  EXPECT_EQ(values[2], 10);  // 1, 1, 1; 1, 2, 3; 1, 3, 6; 1, 4, 10
}

TEST_F(StreamTest, TwoStreamsRunAtOnce) {
  Stream other(&device_);
  uint32_t ping = 0, pong = 0;
  stream_.wait_value(&ping, 1);
  stream_.write_value(&pong, 1);
  other.write_value(&ping, 1);
  other.wait_value(&pong, 1);
  EXPECT_TRUE(other.synchronize().ok());
  EXPECT_TRUE(stream_.synchronize().ok());
}

TEST_F(StreamTest, WaitValueComparesCyclically) {
  uint32_t counter = 0xfffffffe;
  std::atomic<bool> passed = false;
  stream_.wait_value(&counter, 0xfffffff0);  // already past
  stream_.wait_value(&counter, 2);
  stream_.call([&] { passed = true; });
  std::this_thread::sleep_for(milliseconds(5));
  EXPECT_FALSE(passed);
  store_release(&counter, 0xffffffff);
  std::this_thread::sleep_for(milliseconds(5));
  EXPECT_FALSE(passed);
  store_release(&counter, 3);
  EXPECT_TRUE(stream_.synchronize().ok());
  EXPECT_TRUE(passed);
}

TEST_F(StreamTest, WaitForAValueThatNeverComesIsAnError) {
  Device device({.stall_deadline_us = 5'000});
  Stream stream(&device);
  uint32_t counter = 0;
  stream.wait_value(&counter, 1);
  expect_error(stream.synchronize(), ErrorCode::kStalled, {"waited for value 1 for 5 ms, it is 0"});
}

TEST_F(StreamTest, EventsOrderStreams) {
  Stream other(&device_);
  Event event;
  uint32_t gate = 0;
  int value = 0, seen = 0;
  other.wait(event);  // never recorded: nothing to wait for
  EXPECT_TRUE(other.synchronize().ok());
  stream_.wait_value(&gate, 1);
  stream_.call([&] { value = 7; });
  stream_.record(&event);
  EXPECT_FALSE(event.happened());
  other.wait(event);
  other.call([&] { seen = value; });
  store_release(&gate, 1);
  EXPECT_TRUE(other.synchronize().ok());
  EXPECT_TRUE(event.happened());
  EXPECT_EQ(seen, 7);
}

TEST_F(StreamTest, EventsMeasureTime) {
  Event before, after;
  stream_.record(&before);
  stream_.call([] { std::this_thread::sleep_for(milliseconds(3)); });
  stream_.record(&after);
  after.synchronize();
  EXPECT_GE(Event::elapsed_us(before, after), 3000);
  EXPECT_LT(Event::elapsed_us(before, after), 3'000'000);
}

TEST_F(StreamTest, AnErrorStaysAndStopsAllThatFollows) {
  Stream other(&device_);
  bool called = false;
  launch(&stream_, {"first", 1, 64}, emulated::exit_before_barrier, 3);
  stream_.call([&] { called = true; });
  Event event;
  stream_.record(&event);
  event.synchronize();  // does not hang
  expect_error(stream_.synchronize(), ErrorCode::kDivergentBarrier, {"kernel first"});
  EXPECT_FALSE(called);
  EXPECT_EQ(launch(&other, {"second", 1, 64}, emulated::trap_in_thread, 3),
            ErrorCode::kDivergentBarrier);
  expect_error(other.synchronize(), ErrorCode::kDivergentBarrier, {"kernel first"});
}

TEST_F(StreamTest, AFaultStopsKernelsAndWaits) {
  Stream other(&device_);
  unsigned flag = 0;
  launch(&stream_, {"answer", 1, 1}, emulated::answer, &flag, 1);
  other.wait_value(&flag, 1);
  device_.fail({ErrorCode::kInjected, "the device is lost"});
  expect_error(stream_.synchronize(), ErrorCode::kInjected, {"the device is lost"});
  expect_error(other.synchronize(), ErrorCode::kInjected, {"the device is lost"});
}

TEST_F(StreamTest, TheDeadlineIsForEachWaitOfAKernel) {
  Device device({.stall_deadline_us = 1'000'000});
  Stream stream(&device);
  unsigned flag = 0;
  launch(&stream, {"answer", 1, 32}, emulated::answer, &flag, 4);
  for (unsigned round = 0; round < 4; ++round) {
    std::this_thread::sleep_for(milliseconds(300));
    store_release(&flag, 2 * round + 1);
    while (load_acquire(&flag) == 2 * round + 1 && device.error().ok()) std::this_thread::yield();
  }
  const Error error = stream.synchronize();
  EXPECT_TRUE(error.ok()) << error.text;
}

TEST_F(StreamTest, ABadShapeIsSaidAtOnce) {
  EXPECT_EQ(launch(&stream_, {"bad", 1, 2048}, emulated::trap_in_thread, 3), ErrorCode::kBadLaunch);
}

TEST_F(StreamTest, ADeviceMaySleepInsteadOfComputing) {
  Device device({.sleep_per_kernel_us = 4000});
  Stream stream(&device);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 3; ++i) launch(&stream, {"trap", 1, 64}, emulated::trap_in_thread, 3);
  EXPECT_TRUE(stream.synchronize().ok());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(12));
}

TEST_F(StreamTest, ASleepingDeviceRunsTheKernelThatOthersWaitFor) {
  Device device({.sleep_per_kernel_us = 1000, .never_skipped = "answer"});
  Stream stream(&device);
  unsigned flag = 1;
  bool called = false;
  launch(&stream, {"trap", 1, 64}, emulated::trap_in_thread, 3);
  launch(&stream, {"answer", 1, 1}, emulated::answer, &flag, 1);
  stream.call([&] { called = true; });
  EXPECT_TRUE(stream.synchronize().ok());
  EXPECT_EQ(flag, 2u);
  EXPECT_FALSE(called);
}

TEST_F(StreamTest, LateWakeUpsOfASleepingDeviceDoNotAddUp) {
  constexpr int kKernels = 600, kSleepUs = 200;  // a thread is woken some 60 us late
  Device device({.sleep_per_kernel_us = kSleepUs});
  Stream stream(&device);
  Event begin, end;
  stream.record(&begin);
  for (int i = 0; i < kKernels; ++i) launch(&stream, {"trap", 1, 64}, emulated::trap_in_thread, 3);
  stream.record(&end);
  EXPECT_TRUE(stream.synchronize().ok());
  EXPECT_GE(Event::elapsed_us(begin, end), kKernels * kSleepUs);
  EXPECT_LT(Event::elapsed_us(begin, end), kKernels * kSleepUs * 115 / 100);
}

TEST_F(StreamTest, ADeviceMayFailAtAKernel) {
  Device device({.fail_after = 2, .fault = {ErrorCode::kLost, "it is gone"}});
  Stream stream(&device);
  int n_calls = 0;
  for (int i = 0; i < 5; ++i) stream.call([&] { ++n_calls; });
  expect_error(stream.synchronize(), ErrorCode::kLost, {"it is gone"});
  EXPECT_EQ(n_calls, 2);
}

}  // namespace
}  // namespace thermocline::kernels::simt
