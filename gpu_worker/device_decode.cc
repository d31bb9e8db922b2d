// Captures a step's launches and exchanges, counts them, and launches what was captured.
#include "gpu_worker/device_decode.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// Between two looks at a device that works, on a machine that has no core to spare for it.
constexpr std::chrono::microseconds kNap(50);

// Of a graph, at most. A layer's: 10 for attention, 6 for a tail, 14 for neurons, 5 of them for a
// predictor, 4 more to decide for others; attention and neurons with their exchange. A trace's
// stamps: 7 for each, 1 for its exchange, 1 for deciding. Others: 7 copies and fills at the start,
// 2 more of a trace, norm and product of the logits, a download.
constexpr int64_t kLayerNodes = 34, kLayerStamps = 17, kOtherNodes = 12;

int64_t NumGraphs(int64_t n_ctx) {
  int64_t n = 1;
  while ((kernels::kAttendTile << (n - 1)) < n_ctx) ++n;
  return n;
}

}  // namespace

int64_t DeviceDecode::GraphBytes(const DeviceLayers::Options& options, int64_t n_layers,
                                 int64_t node_bytes) {
  const int64_t n_graphs = NumGraphs(options.device_ctx()) + (options.tail_begin > 0 ? 1 : 0);
  const int64_t of_layer = kLayerNodes + (options.trace != nullptr ? kLayerStamps : 0);
  return n_graphs * (n_layers * of_layer + kOtherNodes) * node_bytes;
}

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
  if (const ChoiceMemory choices = exchange->choices(); choices.bits != nullptr) {
    layers->SetChoices({on_device(choices.bits), choices.stride});
  }
  ASSIGN_OR_RETURN(uint8_t * control, device->Allocate(sizeof(Control)));
  decode->control_ = reinterpret_cast<Control*>(control);
  ASSIGN_OR_RETURN(uint8_t * staged, device->AllocateHost(sizeof(Control)));
  decode->staged_ = reinterpret_cast<Control*>(staged);
  RETURN_IF_ERROR(decode->CaptureAll());
  return decode;
}

absl::Status DeviceDecode::CaptureAll() {
  const std::vector<float> x(layers_->config().d_model);
  const StepToken token = {.slot = 0, .position = 0, .logit_row = 0};
  Step any;
  any.tokens = {&token, 1};
  any.n_logit_rows = 1;
  any.x = x.data();
  RETURN_IF_ERROR(layers_->Stage(any));
  // Behind a graph no kernel may be launched for the first time: to load it, a driver may wait for
  // the graph, which waits for other ranks. The others are in the graphs.
  any.wants_best_only = true;
  RETURN_IF_ERROR(layers_->LeaveLogits(any, &exchange_));
  const int64_t n_ctx = layers_->options().device_ctx();
  for (int64_t i = 0; i < NumGraphs(n_ctx); ++i) {
    graphs_.emplace_back();
    ASSIGN_OR_RETURN(graphs_.back(), Capture(std::min(kernels::kAttendTile << i, n_ctx), false));
  }
  if (exchange_.tail().q != nullptr) {
    ASSIGN_OR_RETURN(tail_graph_, Capture(n_ctx, true));
  }
  return device_->Synchronize();
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> DeviceDecode::Capture(int64_t n_positions,
                                                                   bool has_tail) {
  RETURN_IF_ERROR(device_->BeginCapture());
  const absl::Status status = Enqueue(n_positions, has_tail);
  absl::StatusOr<std::unique_ptr<DeviceGraph>> captured = device_->EndCapture();
  RETURN_IF_ERROR(status);
  return captured;
}

absl::Status DeviceDecode::Enqueue(int64_t n_positions, bool has_tail) {
  RETURN_IF_ERROR(device_->Upload(control_, staged_, sizeof(Control)));
  RETURN_IF_ERROR(layers_->Upload());
  DeviceTrace& trace = layers_->trace();
  uint32_t number = 0;
  std::function<absl::Status()> meet;
  if (has_tail) meet = [&] { return Meet(number++); };
  for (int64_t i = 0; i < layers_->config().n_layers; ++i) {
    trace.StartPart(2 * i);
    RETURN_IF_ERROR(layers_->Attention(i, n_positions - 1, meet));
    RETURN_IF_ERROR(Combine(number++, layers_->has_attention(i)));
    trace.StartPart(2 * i + 1);
    if (layers_->has_neurons(i)) RETURN_IF_ERROR(layers_->Ffn(i));
    RETURN_IF_ERROR(Combine(number++, layers_->has_neurons(i)));
  }
  RETURN_IF_ERROR(layers_->Logits(1));  // whether or not the token wants them
  return device_->Download(staged_, control_, sizeof(Control));
}

absl::Status DeviceDecode::Run(const Step& step) {
  *staged_ = {{step.number, access_.arrivals()}, kernels::kExchangeFine};
  RETURN_IF_ERROR(device_->Launch(GraphFor(step)));
  layers_->trace().StartPart(2 * layers_->config().n_layers);
  RETURN_IF_ERROR(layers_->LeaveLogits(step, &exchange_));
  RETURN_IF_ERROR(layers_->EndStep());
  RETURN_IF_ERROR(Await());
  RETURN_IF_ERROR(access_.SkipExchanges());
  if (staged_->state == kernels::kExchangeFine) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{}: in step {} another rank left a partial of another step or exchange",
                  device_->name(), step.number));
}

DeviceGraph* DeviceDecode::GraphFor(const Step& step) const {
  if (step.has_tail) return tail_graph_.get();
  const size_t i = NumGraphs(layers_->max_position() + 1) - 1;
  return graphs_[i].get();
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
