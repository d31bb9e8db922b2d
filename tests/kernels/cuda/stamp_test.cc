// A stream's times: they go forward as its work does, at the pace of the host's clock.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/kernels/cuda/device_testing.h"

namespace thermocline::kernels::testing {
namespace {

using DeviceStamp = DeviceTest;

TEST_P(DeviceStamp, TimesAreInTheOrderOfTheStream) {
  constexpr int kStamps = 20;
  int64_t* times = device_->Allocate<int64_t>(kStamps);
  for (int i = 0; i < kStamps; ++i) EXPECT_EQ(ops_.stamp(stream_, times + i), 0);
  const std::vector<int64_t> ns = device_->Download(times, kStamps);
  EXPECT_GT(ns[0], 0);
  for (int i = 1; i < kStamps; ++i) EXPECT_GE(ns[i], ns[i - 1]) << i;
}

TEST_P(DeviceStamp, TwoHoldAPauseOfTheHostsBetweenThem) {
  constexpr int64_t kPauseNs = 20'000'000, kResolutionNs = 2'000'000;
  int64_t* times = device_->Allocate<int64_t>(2);
  device_->Check(ops_.stamp(stream_, times));
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::nanoseconds(kPauseNs));
  device_->Check(ops_.stamp(stream_, times + 1));
  const std::chrono::nanoseconds paused = std::chrono::steady_clock::now() - start;
  const std::vector<int64_t> ns = device_->Download(times, 2);
  EXPECT_GE(ns[1] - ns[0], kPauseNs - kResolutionNs);
  EXPECT_LE(ns[1] - ns[0], 2 * paused.count() + kPauseNs);  // the first one's end was seen late
}

INSTANTIATE_DEVICE_TESTS(DeviceStamp);

}  // namespace
}  // namespace thermocline::kernels::testing
