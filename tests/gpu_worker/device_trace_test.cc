// A device's times as spans: their order, their clock, and that nothing is asked of a device whose
// steps are not traced.
#include "gpu_worker/device_trace.h"

#include <gtest/gtest.h>

#include <chrono>
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
