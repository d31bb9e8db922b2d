// A ring of whole steps' spans.
#include "common/util/trace.h"

#include <algorithm>
#include <iterator>

namespace thermocline {

const char* TraceOpName(TraceOp op) {
  static constexpr const char* kNames[] = {
      "step", "embed",  "run",   "upload",           "norm",      "qkv",    "meet",
      "rope", "attend", "tail",  "attention output", "attention", "other",  "choose",
      "gate", "fire",   "up",    "activate",         "down",      "stream", "leave",
      "wait", "add",    "output"};
  static_assert(std::size(kNames) == kTraceOps);
  static_assert(static_cast<int>(TraceOp::kOutput) == kTraceOps - 1);
  return kNames[static_cast<int>(op)];
}

TraceRecorder::TraceRecorder(int64_t n_spans) : ring_(n_spans) { step_.reserve(1 << 12); }

void TraceRecorder::BeginStep(uint64_t step, int64_t begin_ns) {
  step_.clear();
  step_.push_back({begin_ns, begin_ns, step, -1, TraceOp::kStep});
}

void TraceRecorder::EndStep(int64_t end_ns) {
  step_[0].end_ns = end_ns;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const TraceSpan& span : step_) ring_[n_added_++ % ring_.size()] = span;
}

std::vector<TraceSpan> TraceRecorder::Read() const {
  std::vector<TraceSpan> spans;
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t n = std::min<uint64_t>(n_added_, ring_.size());
  spans.reserve(n);
  for (uint64_t i = n_added_ - n; i < n_added_; ++i) {
    const TraceSpan& span = ring_[i % ring_.size()];
    // The oldest step may have lost its first spans.
    if (spans.empty() && span.op != TraceOp::kStep) continue;
    spans.push_back(span);
  }
  return spans;
}

}  // namespace thermocline
