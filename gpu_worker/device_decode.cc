// Captures a step's launches and exchanges once for each tile of positions, and launches them.
#include "gpu_worker/device_decode.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// Between two looks at a device that works, on a machine that has no core to spare for it.
constexpr std::chrono::microseconds kNap(50);

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceDecode>> DeviceDecode::Create(DeviceLayers* layers,
                                                                   Device* device,
                                                                   Exchange* exchange) {
  std::unique_ptr<DeviceDecode> decode(new DeviceDecode(layers, device, exchange));
  const absl::Span<uint8_t> memory = decode->access_.memory();
  ASSIGN_OR_RETURN(uint8_t * registered,
                   device->Register(memory.data(), static_cast<int64_t>(memory.size())));
  const auto on_device = [&](auto* address) {
    return reinterpret_cast<decltype(address)>(
        registered + (reinterpret_cast<const uint8_t*>(address) - memory.data()));
  };
  decode->memory_ = decode->access_.layout();
  decode->memory_.abort = on_device(decode->memory_.abort);
  decode->memory_.arrived = on_device(decode->memory_.arrived);
  decode->memory_.headers = on_device(decode->memory_.headers);
  decode->memory_.partials = on_device(decode->memory_.partials);
  TailMemory tail = exchange->tail();
  if (tail.q != nullptr) {
    layers->SetTail(
        {on_device(tail.q), on_device(tail.k), on_device(tail.v), on_device(tail.state)});
  }
  ASSIGN_OR_RETURN(uint8_t * control, device->Allocate(sizeof(Control)));
  decode->control_ = reinterpret_cast<Control*>(control);
  ASSIGN_OR_RETURN(uint8_t * staged, device->AllocateHost(sizeof(Control)));
  decode->staged_ = reinterpret_cast<Control*>(staged);
  return decode;
}

absl::Status DeviceDecode::Run(const Step& step) {
  *staged_ = {{step.number, access_.arrivals()}, kernels::kExchangeFine};
  const Key key = {layers_->max_position() / kernels::kAttendTile, step.n_logit_rows,
                   layers_->is_as_planned(), step.has_tail};
  ASSIGN_OR_RETURN(DeviceGraph * graph, GraphFor(key));
  RETURN_IF_ERROR(device_->Launch(graph));
  RETURN_IF_ERROR(layers_->LeaveLogits(step, &exchange_));
  RETURN_IF_ERROR(Await());
  RETURN_IF_ERROR(access_.SkipExchanges());
  if (staged_->state == kernels::kExchangeFine) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{}: in step {} another rank left a partial of another step or exchange",
                  device_->name(), step.number));
}

absl::StatusOr<DeviceGraph*> DeviceDecode::GraphFor(const Key& key) {
  std::unique_ptr<DeviceGraph>& graph = graphs_[key];
  if (graph != nullptr) return graph.get();
  // A sequence goes on to the next tile and does not come back; others may be anywhere.
  constexpr size_t kMaxGraphs = 8;
  if (graphs_.size() > kMaxGraphs) {
    graphs_.erase(graphs_.begin()->first == key ? std::prev(graphs_.end()) : graphs_.begin());
  }
  RETURN_IF_ERROR(device_->BeginCapture());
  const absl::Status status = Enqueue(key);
  absl::StatusOr<std::unique_ptr<DeviceGraph>> captured = device_->EndCapture();
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(captured.status());
  graph = *std::move(captured);
  return graph.get();
}

absl::Status DeviceDecode::Enqueue(const Key& key) {
  const auto& [tile, n_rows, is_as_planned, has_tail] = key;
  const int64_t last =
      std::min((tile + 1) * kernels::kAttendTile, layers_->options().device_ctx()) - 1;
  RETURN_IF_ERROR(device_->Upload(control_, staged_, sizeof(Control)));
  RETURN_IF_ERROR(layers_->Upload());
  DeviceTrace& trace = layers_->trace();
  uint32_t number = 0;
  std::function<absl::Status()> meet;
  if (has_tail) meet = [&] { return Meet(number++); };
  for (int64_t i = 0; i < layers_->config().n_layers; ++i) {
    trace.StartPart(2 * i);
    RETURN_IF_ERROR(layers_->Attention(i, last, meet));
    RETURN_IF_ERROR(Combine(number++, layers_->has_attention(i)));
    trace.StartPart(2 * i + 1);
    if (layers_->has_neurons(i)) RETURN_IF_ERROR(layers_->Ffn(i));
    RETURN_IF_ERROR(Combine(number++, layers_->has_neurons(i)));
  }
  trace.StartPart(2 * layers_->config().n_layers);
  RETURN_IF_ERROR(layers_->Logits(n_rows));
  RETURN_IF_ERROR(layers_->EndStep());
  return device_->Download(staged_, control_, sizeof(Control));
}

absl::Status DeviceDecode::Combine(uint32_t number, bool has_partial) {
  DeviceTrace& trace = layers_->trace();
  RETURN_IF_ERROR(
      EnqueueExchange(number, has_partial ? layers_->partial() : nullptr, trace.ExchangeTimes()));
  return trace.Mark(TraceOp::kAdd);
}

absl::Status DeviceDecode::Meet(uint32_t number) {
  return EnqueueExchange(number, nullptr, nullptr);
}

absl::Status DeviceDecode::EnqueueExchange(uint32_t number, const float* partial, int64_t* times) {
  return device_->Check(
      device_->ops().exchange(device_->stream(), memory_, &control_->step, number, partial,
                              layers_->h(), layers_->config().d_model, &control_->state, times),
      "exchange");
}

absl::Status DeviceDecode::Await() {
  for (;;) {
    ASSIGN_OR_RETURN(const bool is_idle, device_->IsIdle());
    if (is_idle) return device_->Synchronize();
    access_.WakeWaiters();
    if (!access_.spins()) std::this_thread::sleep_for(kNap);
  }
}

}  // namespace thermocline
