// Spans of a GPU rank's steps, by the device's own clock: between launches the stream leaves the
// time in slots, which are read when the step is done. Not traced: no launch, no memory, nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/util/trace.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_clock.h"

namespace thermocline {

class DeviceTrace {
 public:
  // recorder: null where steps are not traced; then no call does anything. Both must outlive the
  // object.
  static absl::StatusOr<std::unique_ptr<DeviceTrace>> Create(Device* device, int64_t n_layers,
                                                             TraceRecorder* recorder);

  // On the host: a step begins, and the device has done all of it.
  void BeginStep(uint64_t step);
  void EndStep();

  // In the stream's order, captured where the stream is.
  absl::Status Reset();  // first
  // What comes next belongs to this exchange of the step, or, with the number after the last one,
  // to the output. Each op at most once.
  void StartPart(int64_t exchange) { part_ = exchange; }
  // What was enqueued since the last mark is this op.
  absl::Status Mark(TraceOp op);
  // For an exchange that the device makes by itself, which marks kLeave and kWait there; or null.
  int64_t* ExchangeTimes() { return is_on() ? Slot(TraceOp::kLeave) : nullptr; }
  absl::Status Collect();  // last

  // What the host has just done, having waited for the stream.
  void MarkHost(TraceOp op) {
    if (is_on()) host_ns_[SlotIndex(op)] = MonotonicNs();
  }

 private:
  DeviceTrace(Device* device, int64_t n_layers, TraceRecorder* recorder)
      : device_(device), recorder_(recorder), n_slots_((2 * n_layers + 1) * kTraceOps) {}
  bool is_on() const { return recorder_ != nullptr; }
  int64_t SlotIndex(TraceOp op) const { return part_ * kTraceOps + static_cast<int64_t>(op); }
  int64_t* Slot(TraceOp op) const { return slots_ + SlotIndex(op); }
  int64_t n_bytes() const { return n_slots_ * static_cast<int64_t>(sizeof(int64_t)); }
  absl::Status Calibrate();
  void RecordStep(int64_t end_ns);

  Device* const device_;
  TraceRecorder* const recorder_;
  const int64_t n_slots_;
  // [2 * n_layers + 1, kTraceOps]: the time at the end of each op, in the order in which they
  // happen; 0: not in this step.
  int64_t* slots_ = nullptr;      // of the device, its clock
  int64_t* staged_ = nullptr;     // the same on the host, pinned
  std::vector<int64_t> host_ns_;  // of ops that MarkHost was told of, this host's clock
  DeviceClock clock_;
  uint64_t step_ = 0;
  int64_t begin_ns_ = 0;  // of the step, the host's
  int64_t part_ = 0;
};

}  // namespace thermocline
