// The recorder of spans: what it keeps, in which order, while others read.
#include "common/util/trace.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>

namespace thermocline {
namespace {

// Spans of 10 ns, the step's own beside them.
void Record(TraceRecorder* recorder, uint64_t step, int32_t n_layers) {
  const int64_t begin = static_cast<int64_t>(step) * 1000;
  recorder->BeginStep(step, begin);
  for (int32_t i = 0; i < n_layers; ++i) {
    recorder->Add(TraceOp::kGate, i, begin + 10 * i, begin + 10 * i + 10);
  }
  recorder->EndStep(begin + 10 * n_layers);
}

// Every step there is whole, and they are the last ones up to `last`, in order.
void ExpectWholeSteps(const std::vector<TraceSpan>& spans, int32_t n_layers, uint64_t last) {
  ASSERT_EQ(spans.size() % (n_layers + 1), 0u);
  const auto n_steps = static_cast<uint64_t>(spans.size() / (n_layers + 1));
  auto span = spans.begin();
  for (uint64_t step = last + 1 - n_steps; step <= last; ++step) {
    const TraceSpan whole = *span++;
    EXPECT_EQ(whole.op, TraceOp::kStep);
    EXPECT_EQ(whole.step, step);
    for (int32_t i = 0; i < n_layers; ++i, ++span) {
      EXPECT_EQ(span->op, TraceOp::kGate);
      EXPECT_EQ(span->step, step);
      EXPECT_EQ(span->layer, i);
      EXPECT_GE(span->begin_ns, whole.begin_ns);
      EXPECT_LE(span->end_ns, whole.end_ns);
    }
  }
}

TEST(TraceRecorder, KeepsStepsInTheirOrder) {
  TraceRecorder recorder(100);
  EXPECT_TRUE(recorder.Read().empty());
  for (uint64_t step = 1; step <= 9; ++step) Record(&recorder, step, 4);
  EXPECT_EQ(recorder.Read().size(), 45u);
  ExpectWholeSteps(recorder.Read(), 4, 9);
}

TEST(TraceRecorder, WhenItIsFullTheOldestStepsGoAndNoneIsLeftInPieces) {
  for (const int64_t n_spans : {15, 16, 17, 18, 19, 20}) {
    TraceRecorder recorder(n_spans);
    for (uint64_t step = 1; step <= 9; ++step) Record(&recorder, step, 4);
    EXPECT_EQ(recorder.Read().size(), n_spans / 5 * 5u) << n_spans;
    ExpectWholeSteps(recorder.Read(), 4, 9);
  }
}

TEST(TraceRecorder, AStepThatIsNotEndedLeavesNothing) {
  TraceRecorder recorder(100);
  Record(&recorder, 1, 4);
  recorder.BeginStep(2, 2000);
  recorder.Add(TraceOp::kGate, 0, 2000, 2010);
  ExpectWholeSteps(recorder.Read(), 4, 1);
  Record(&recorder, 3, 4);
  EXPECT_EQ(recorder.Read().size(), 10u);
}

TEST(TraceRecorder, IsReadWhileStepsRun) {
  TraceRecorder recorder(50);
  std::thread steps([&] {
    for (uint64_t step = 1; step <= 2000; ++step) Record(&recorder, step, 4);
  });
  for (int i = 0; i < 100; ++i) {
    const std::vector<TraceSpan> spans = recorder.Read();
    if (!spans.empty()) ExpectWholeSteps(spans, 4, spans.back().step);
  }
  steps.join();
  ExpectWholeSteps(recorder.Read(), 4, 2000);
}

TEST(TraceRecorder, EveryOpHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int op = 0; op < kTraceOps; ++op) {
    names.insert(TraceOpName(static_cast<TraceOp>(op)));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kTraceOps));
}

}  // namespace
}  // namespace thermocline
