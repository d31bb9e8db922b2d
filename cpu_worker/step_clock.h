// Where the time of steps goes, as the leader of a rank sees it: added up, and as spans where steps
// are traced.
#pragma once

#include <array>
#include <cstdint>

#include "common/util/trace.h"

namespace thermocline {

class StepClock {
 public:
  explicit StepClock(TraceRecorder* trace) : trace_(trace) {}  // null: no spans

  // Of thread 0 only; others' calls do nothing.
  void StartStep(uint64_t step) {
    last_ns_ = MonotonicNs();
    if (trace_ != nullptr) trace_->BeginStep(step, last_ns_);
  }
  void StartLayer(int32_t thread, int64_t layer) {  // -1: none
    if (thread == 0) layer_ = static_cast<int32_t>(layer);
  }
  // The time since the last call belongs to this op.
  void Mark(int32_t thread, TraceOp op) {
    if (thread != 0) return;
    const int64_t now_ns = MonotonicNs();
    op_ns_[static_cast<int>(op)] += now_ns - last_ns_;
    if (trace_ != nullptr) trace_->Add(op, layer_, last_ns_, now_ns);
    last_ns_ = now_ns;
  }
  void EndStep() {
    if (trace_ != nullptr) trace_->EndStep(MonotonicNs());
  }

  using Times = std::array<int64_t, kTraceOps>;  // ns, by TraceOp
  const Times& op_ns() const { return op_ns_; }

 private:
  TraceRecorder* const trace_;
  int64_t last_ns_ = 0;
  int32_t layer_ = -1;
  Times op_ns_ = {};
};

}  // namespace thermocline
