// Serving, and steps by the plain way.
#include "gpu_worker/device_forward.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kNap(20), kMaxNap(1000);  // between two looks at the device
constexpr std::chrono::milliseconds kBeat(100);
// What lies between two exchanges takes a card milliseconds, and the emulated device, with a long
// prompt, seconds.
constexpr std::chrono::seconds kDeviceDeadline(120);

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceForward>> DeviceForward::Create(const DeviceShard* shard,
                                                                     Device* device,
                                                                     const Options& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<DeviceLayers> layers,
                   DeviceLayers::Create(shard, device, options));
  std::unique_ptr<DeviceForward> forward(new DeviceForward(std::move(layers), device));
  forward->totals_.ffn.resize(shard->config().n_layers);
  return forward;
}

absl::Status DeviceForward::Prepare(Exchange& exchange) {
  if (exchange.device_access() == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(decode_, DeviceDecode::Create(layers_.get(), device_, &exchange));
  std::lock_guard<std::mutex> lock(totals_mutex_);
  totals_.step_form = decode_->form_text();
  return absl::OkStatus();
}

absl::Status DeviceForward::Serve(Exchange& exchange) {
  for (;;) {
    const absl::StatusOr<Step> step = exchange.NextStep();
    if (absl::IsCancelled(step.status())) return absl::OkStatus();
    RETURN_IF_ERROR(step.status());
    const absl::Status status = RunStep(*step, exchange);
    if (absl::IsCancelled(status)) return absl::OkStatus();
    RETURN_IF_ERROR(status);
  }
}

absl::Status DeviceForward::RunStep(const Step& step, Exchange& exchange) {
  const Clock::time_point start = Clock::now();
  layers_->trace().BeginStep(step.number);
  RETURN_IF_ERROR(layers_->Stage(step));
  const bool decodes = decode_ != nullptr && step.n_tokens() == 1;
  RETURN_IF_ERROR(decodes ? decode_->Run(step) : RunPlain(step, exchange));
  CountStep(Clock::now() - start);
  return exchange.FinishStep();
}

absl::Status DeviceForward::RunPlain(const Step& step, Exchange& exchange) {
  const StreamHost host = {[&] { exchange.Working(); }, [&] { return Await(exchange); }};
  DeviceTrace& trace = layers_->trace();
  RETURN_IF_ERROR(layers_->Upload());
  std::function<absl::Status()> meet;
  if (step.has_tail) {
    meet = [&]() -> absl::Status {
      RETURN_IF_ERROR(Await(exchange));
      return exchange.Meet();
    };
  }
  for (int64_t i = 0; i < layers_->config().n_layers; ++i) {
    trace.StartPart(2 * i);
    RETURN_IF_ERROR(layers_->Attention(i, layers_->max_position(), meet));
    RETURN_IF_ERROR(Combine(layers_->has_attention(i), step.n_tokens(), exchange));
    trace.StartPart(2 * i + 1);
    if (layers_->has_neurons(i)) RETURN_IF_ERROR(layers_->Ffn(i, host));
    RETURN_IF_ERROR(Combine(layers_->has_neurons(i), step.n_tokens(), exchange));
  }
  trace.StartPart(2 * layers_->config().n_layers);
  RETURN_IF_ERROR(layers_->Logits(step.n_logit_rows));
  RETURN_IF_ERROR(layers_->LeaveLogits(step, &exchange));
  RETURN_IF_ERROR(layers_->EndStep());
  return Await(exchange);
}

absl::Status DeviceForward::Combine(bool has_partial, int64_t n_tokens, Exchange& exchange) {
  const int64_t n = n_tokens * layers_->config().d_model;
  const int64_t n_bytes = n * static_cast<int64_t>(sizeof(float));
  if (has_partial) {
    RETURN_IF_ERROR(device_->Download(exchange.Partial(), layers_->partial(), n_bytes));
  } else {
    exchange.NoPartial();
  }
  // Also before h is written: what was sent of it has arrived.
  RETURN_IF_ERROR(Await(exchange));
  DeviceTrace& trace = layers_->trace();
  trace.MarkHost(TraceOp::kLeave);
  RETURN_IF_ERROR(exchange.Arrive());
  float* h = layers_->staged_h();
  if (exchange.sliced()) {
    exchange.AddSlice(h, exchange.slice_begin(), exchange.slice_end());
    RETURN_IF_ERROR(exchange.ArriveSlices());
  }
  trace.MarkHost(TraceOp::kWait);
  exchange.Collect(h, 0, n);
  RETURN_IF_ERROR(device_->Upload(layers_->h(), h, n_bytes));
  return trace.Mark(TraceOp::kAdd);
}

absl::Status DeviceForward::Await(Exchange& exchange) {
  const Clock::time_point start = Clock::now();
  Clock::time_point next_beat = start + kBeat;
  for (std::chrono::microseconds nap = kNap;; nap = std::min(nap * 2, kMaxNap)) {
    ASSIGN_OR_RETURN(const bool is_idle, device_->IsIdle());
    if (is_idle) return device_->Synchronize();
    const Clock::time_point now = Clock::now();
    if (now - start > kDeviceDeadline) {
      return absl::DeadlineExceededError(
          fmt::format("{} has not done what it was given for {} s; see nvidia-smi, and lower "
                      "--batch-size if it is only slow",
                      device_->name(), kDeviceDeadline.count()));
    }
    if (now > next_beat) {
      exchange.Working();
      next_beat = now + kBeat;
    }
    std::this_thread::sleep_for(nap);
  }
}

void DeviceForward::CountStep(std::chrono::nanoseconds took) {
  layers_->CollectCounts();
  layers_->trace().EndStep();
  std::lock_guard<std::mutex> lock(totals_mutex_);  // before the coordinator goes on: it may ask
  ++totals_.steps;
  totals_.step_ns += took.count();
  totals_.ffn = layers_->counts();
}

DeviceForward::Totals DeviceForward::totals() const {
  std::lock_guard<std::mutex> lock(totals_mutex_);
  return totals_;
}

}  // namespace thermocline
