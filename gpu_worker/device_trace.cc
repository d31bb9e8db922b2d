// Stamps into slots, slots into spans.
#include "gpu_worker/device_trace.h"

#include <algorithm>
#include <iterator>

#include "common/util/status_macros.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<DeviceTrace>> DeviceTrace::Create(Device* device, int64_t n_layers,
                                                                 TraceRecorder* recorder) {
  std::unique_ptr<DeviceTrace> trace(new DeviceTrace(device, n_layers, recorder));
  if (!trace->is_on()) return trace;
  ASSIGN_OR_RETURN(uint8_t * slots, device->Allocate(trace->n_bytes()));
  ASSIGN_OR_RETURN(uint8_t * staged, device->AllocateHost(trace->n_bytes()));
  trace->slots_ = reinterpret_cast<int64_t*>(slots);
  trace->staged_ = reinterpret_cast<int64_t*>(staged);
  trace->host_ns_.resize(trace->n_slots_);
  RETURN_IF_ERROR(trace->Calibrate());
  return trace;
}

absl::Status DeviceTrace::Calibrate() {
  constexpr int kReadings = 10;
  for (int i = 0; i < kReadings; ++i) {
    const int64_t before = MonotonicNs();
    RETURN_IF_ERROR(device_->Check(device_->ops().stamp(device_->stream(), slots_), "stamp"));
    RETURN_IF_ERROR(device_->Synchronize());
    const int64_t after = MonotonicNs();
    RETURN_IF_ERROR(device_->Download(staged_, slots_, sizeof(int64_t)));
    RETURN_IF_ERROR(device_->Synchronize());
    clock_.Observe(before, staged_[0], staged_[0], after);
  }
  return absl::OkStatus();
}

void DeviceTrace::BeginStep(uint64_t step) {
  if (!is_on()) return;
  step_ = step;
  begin_ns_ = MonotonicNs();
  std::fill(host_ns_.begin(), host_ns_.end(), 0);
}

absl::Status DeviceTrace::Reset() {
  return is_on() ? device_->Fill(slots_, 0, n_bytes()) : absl::OkStatus();
}

absl::Status DeviceTrace::Mark(TraceOp op) {
  if (!is_on()) return absl::OkStatus();
  return device_->Check(device_->ops().stamp(device_->stream(), Slot(op)), "stamp");
}

absl::Status DeviceTrace::Collect() {
  return is_on() ? device_->Download(staged_, slots_, n_bytes()) : absl::OkStatus();
}

void DeviceTrace::EndStep() {
  if (!is_on()) return;
  const int64_t end_ns = MonotonicNs();
  const auto is_set = [](int64_t ns) { return ns != 0; };
  const int64_t* const end = staged_ + n_slots_;
  const int64_t* const first = std::find_if(staged_, staged_ + n_slots_, is_set);
  if (first != end) {
    const auto last =
        std::find_if(std::make_reverse_iterator(end), std::make_reverse_iterator(first), is_set);
    clock_.Observe(begin_ns_, *first, *last, end_ns);
  }
  RecordStep(end_ns);
}

void DeviceTrace::RecordStep(int64_t end_ns) {
  recorder_->BeginStep(step_, begin_ns_);
  int64_t last_ns = begin_ns_;
  for (int64_t i = 0; i < n_slots_; ++i) {
    if (host_ns_[i] == 0 && staged_[i] == 0) continue;
    const int64_t ns = host_ns_[i] != 0 ? host_ns_[i] : clock_.ToHost(staged_[i]);
    const auto op = static_cast<TraceOp>(i % kTraceOps);
    const bool is_of_layer = op != TraceOp::kUpload && op != TraceOp::kOutput;
    const int64_t op_end_ns = std::clamp(ns, last_ns, end_ns);
    recorder_->Add(op, is_of_layer ? static_cast<int32_t>(i / kTraceOps / 2) : -1, last_ns,
                   op_end_ns);
    last_ns = op_end_ns;
  }
  recorder_->EndStep(end_ns);
}

}  // namespace thermocline
