// A device's times as spans: their order, their clock, and that nothing is asked of a device whose
// steps are not traced.
#include "gpu_worker/device_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

namespace thermocline {
namespace {

constexpr int64_t kLayers = 2;

// A step of ops that take no time but for one, which takes this long.
void RunStep(Device* device, DeviceTrace* trace, uint64_t step, int64_t gate_us) {
  trace->BeginStep(step);
  ASSERT_TRUE(trace->Reset().ok());
  trace->StartPart(0);
  ASSERT_TRUE(trace->Mark(TraceOp::kUpload).ok());
  trace->StartPart(3);
  ASSERT_TRUE(trace->Mark(TraceOp::kNorm).ok());
  ASSERT_TRUE(device->Synchronize().ok());
  std::this_thread::sleep_for(std::chrono::microseconds(gate_us));
  ASSERT_TRUE(trace->Mark(TraceOp::kGate).ok());
  ASSERT_TRUE(device->Synchronize().ok());
  trace->MarkHost(TraceOp::kWait);
  ASSERT_TRUE(trace->Mark(TraceOp::kAdd).ok());
  trace->StartPart(2 * kLayers);
  ASSERT_TRUE(trace->Mark(TraceOp::kOutput).ok());
  ASSERT_TRUE(trace->Collect().ok());
  ASSERT_TRUE(device->Synchronize().ok());
  trace->EndStep();
}

TEST(DeviceTrace, OpsFollowOneAnotherWithinTheirStep) {
  constexpr int64_t kGateUs = 5000;
  const auto device = OpenEmulatedDevice({});
  TraceRecorder recorder(1000);
  auto trace = DeviceTrace::Create(device.get(), kLayers, &recorder);
  ASSERT_TRUE(trace.ok()) << trace.status();
  for (uint64_t step = 1; step <= 5; ++step) RunStep(device.get(), trace->get(), step, kGateUs);
  const std::vector<TraceSpan> spans = recorder.Read();
  const std::vector<std::pair<TraceOp, int32_t>> expected = {
      {TraceOp::kStep, -1}, {TraceOp::kUpload, -1}, {TraceOp::kNorm, 1},   {TraceOp::kGate, 1},
      {TraceOp::kWait, 1},  {TraceOp::kAdd, 1},     {TraceOp::kOutput, -1}};
  ASSERT_EQ(spans.size(), 5 * expected.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    const TraceSpan &step = spans[i / expected.size() * expected.size()], &span = spans[i];
    EXPECT_EQ(span.step, i / expected.size() + 1);
    EXPECT_EQ(std::pair(span.op, span.layer), expected[i % expected.size()]);
    EXPECT_LE(span.begin_ns, span.end_ns);
    EXPECT_LE(span.end_ns, step.end_ns);
    const bool is_first = span.op == TraceOp::kStep || span.op == TraceOp::kUpload;
    EXPECT_EQ(span.begin_ns, is_first ? step.begin_ns : spans[i - 1].end_ns);
    if (span.op != TraceOp::kGate) continue;
    EXPECT_GE(span.end_ns - span.begin_ns, kGateUs * 1000);
  }
}

TEST(DeviceClock, ReadingsBoundTheOffset) {
  DeviceClock clock;
  clock.Observe(1000, 100, 100, 1100);
  EXPECT_EQ(clock.ToHost(100), 1050);
  clock.Observe(2000, 1160, 1160, 2020);  // 840 to 860
  EXPECT_EQ(clock.ToHost(0), 860);
  clock.Observe(3000, 2145, 2145, 3055);  // 855 to 910: no reason to move
  EXPECT_EQ(clock.ToHost(0), 860);
  clock.Observe(4000, 3130, 3132, 4002);  // 870
  EXPECT_EQ(clock.ToHost(0), 870);
  clock.Observe(5000, 4120, 4140, 5000);  // 880 to 860: crossed
  EXPECT_EQ(clock.ToHost(0), 870);
}

// A millionth too fast, over an hour of steps of 2 ms whose host takes 50 us before and after.
TEST(DeviceClock, FollowsADrift) {
  constexpr int64_t kStepNs = 2'000'000, kHostNs = 50'000, kSteps = 1'800'000;
  const auto device_at = [](int64_t host_ns) {
    return host_ns + host_ns / 1'000'000 - 987'654'321;
  };
  DeviceClock clock;
  int64_t worst = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    const int64_t begin = step * kStepNs, first = begin + kHostNs, last = first + 1'800'000;
    clock.Observe(begin, device_at(first), device_at(last), last + kHostNs);
    worst = std::max(worst, std::abs(clock.ToHost(device_at(last)) - last));
  }
  EXPECT_LE(worst, kHostNs + 2);
}

TEST(DeviceTrace, AStepThatIsNotTracedAsksNothingOfItsDevice) {
  for (const auto fault : {EmulatedOptions::Fault::kAllocate, EmulatedOptions::Fault::kLaunch}) {
    EmulatedOptions options;
    options.fault = fault;
    const auto device = OpenEmulatedDevice(options);
    TraceRecorder recorder(100);
    EXPECT_FALSE(DeviceTrace::Create(device.get(), kLayers, &recorder).ok());
    const auto untouched = OpenEmulatedDevice(options);
    const auto trace = DeviceTrace::Create(untouched.get(), kLayers, nullptr);
    ASSERT_TRUE(trace.ok()) << trace.status();
    RunStep(untouched.get(), trace->get(), 1, 0);
    EXPECT_EQ((*trace)->ExchangeTimes(), nullptr);
  }
}

}  // namespace
}  // namespace thermocline
