// Captures a step's launches and exchanges in either form, and launches what was captured.
#include "gpu_worker/device_decode.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// Between two looks at a device that works, on a machine that has no core to spare for it.
constexpr std::chrono::microseconds kNap(50);

// Operations of a graph or a program, at most. A layer's: 10 for attention, 6 for a tail, 14 for
// neurons, 5 of them for a predictor, 4 more to decide for others; attention and neurons with their
// exchange. A trace's stamps: 7 for each, 1 for its exchange, 1 for deciding. Others: 7 copies and
// fills at the start, 2 more of a trace, norm and product of the logits, a download; or a fill and
// one kernel.
constexpr int64_t kLayerNodes = 34, kLayerStamps = 17, kOtherNodes = 12;

constexpr char kGraphText[] = "a graph", kResidentText[] = "a resident kernel";
constexpr int64_t kBarrierBytes = 256;  // before a program's steps
constexpr uint32_t kAloneLaunches = 6;
constexpr std::chrono::seconds kAloneDeadline(20);

// Of tiles of positions that graphs are captured for.
int64_t NumSizes(int64_t n_ctx) {
  int64_t n = 1;
  while ((kernels::kAttendTile << (n - 1)) < n_ctx) ++n;
  return n;
}
int64_t NumGraphs(const DeviceLayers::Options& options) {
  return NumSizes(options.device_ctx()) + (options.tail_begin > 0 ? 1 : 0);
}

// Of a graph, or of a program.
int64_t MaxOperations(const DeviceLayers::Options& options, int64_t n_layers) {
  return n_layers * (kLayerNodes + (options.trace != nullptr ? kLayerStamps : 0)) + kOtherNodes;
}
int64_t ProgramBytes(int64_t max_steps) {
  return kBarrierBytes + max_steps * static_cast<int64_t>(sizeof(kernels::ProgramStep));
}

}  // namespace

int64_t DeviceDecode::GraphBytes(const DeviceLayers::Options& options, int64_t n_layers,
                                 int64_t node_bytes) {
  const int64_t n_operations = MaxOperations(options, n_layers);
  return NumGraphs(options) * (n_operations * node_bytes + ProgramBytes(n_operations));
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
  RETURN_IF_ERROR(decode->Prepare());
  return decode;
}

absl::Status DeviceDecode::Prepare() {
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
  if (device_->step_form() != StepForm::kGraph) {
    const int64_t n_programs = NumGraphs(layers_->options());
    ASSIGN_OR_RETURN(programs_, device_->Allocate(n_programs * ProgramBytes(max_steps())));
  }
  RETURN_IF_ERROR(ChooseForm());
  return CaptureAll();
}

absl::Status DeviceDecode::ChooseForm() {
  form_ = device_->step_form();
  if (form_ == StepForm::kResident) form_text_ = kResidentText;
  if (form_ != StepForm::kFaster) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::chrono::nanoseconds graph, TimeAlone(StepForm::kGraph));
  ASSIGN_OR_RETURN(const std::chrono::nanoseconds resident, TimeAlone(StepForm::kResident));
  const bool stays = resident < graph;
  form_ = stays ? StepForm::kResident : StepForm::kGraph;
  const auto text = [](std::chrono::nanoseconds time) {
    return fmt::format("{} us", time.count() / 1000);
  };
  form_text_ = fmt::format("{}: {} without other ranks, {} as {}",
                           stays ? kResidentText : kGraphText, text(stays ? resident : graph),
                           text(stays ? graph : resident), stays ? kGraphText : kResidentText);
  return absl::OkStatus();
}

absl::StatusOr<std::chrono::nanoseconds> DeviceDecode::TimeAlone(StepForm form) {
  const int64_t d_model = layers_->config().d_model;
  struct Segment {
    alignas(64) uint32_t abort, arrived;
    PartialHeader headers[2];
  };
  // Pinned memory, which the device has at the same address.
  const int64_t n_bytes = sizeof(Segment) + 2 * d_model * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(uint8_t * host, device_->AllocateHost(n_bytes));
  std::memset(host, 0, static_cast<size_t>(n_bytes));
  auto* const segment = reinterpret_cast<Segment*>(host);
  const ExchangeMemory fleets = memory_;
  memory_ = {&segment->abort,
             &segment->arrived,
             0,
             segment->headers,
             reinterpret_cast<float*>(host + sizeof(Segment)),
             d_model,
             1,
             0,
             fleets.epoch};
  const auto time = [&]() -> absl::StatusOr<std::chrono::nanoseconds> {
    const int64_t n_positions = std::min(kernels::kAttendTile, layers_->options().device_ctx());
    ASSIGN_OR_RETURN(const std::unique_ptr<DeviceGraph> graph,
                     Capture(form, n_positions, /*has_tail=*/false, /*number=*/0));
    return TimeLaunches(graph.get());
  }();
  memory_ = fleets;
  RETURN_IF_ERROR(time.status());
  device_->FreeHost(host);
  return time;
}

absl::StatusOr<std::chrono::nanoseconds> DeviceDecode::TimeLaunches(DeviceGraph* graph) {
  const auto n_exchanges = static_cast<uint32_t>(2 * layers_->config().n_layers);
  std::chrono::nanoseconds best = kAloneDeadline;  // the first launch also loads the kernels
  for (uint32_t i = 0; i < kAloneLaunches; ++i) {
    *staged_ = {{i, i * n_exchanges}, kernels::kExchangeFine};
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(device_->Launch(graph));
    for (bool is_idle = false; !is_idle;) {
      ASSIGN_OR_RETURN(is_idle, device_->IsIdle());
      if (std::chrono::steady_clock::now() - start < kAloneDeadline) continue;
      return absl::DeadlineExceededError(
          fmt::format("{}: a step without other ranks has not ended after {} s; take --gpu-device "
                      "{}:step=graph, and see nvidia-smi",
                      device_->name(), kAloneDeadline.count(), device_->name()));
    }
    RETURN_IF_ERROR(device_->Synchronize());
    best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
  }
  return best;
}

absl::Status DeviceDecode::CaptureAll() {
  const int64_t n_ctx = layers_->options().device_ctx();
  for (int64_t i = 0; i < NumSizes(n_ctx); ++i) {
    graphs_.emplace_back();
    ASSIGN_OR_RETURN(graphs_.back(),
                     Capture(form_, std::min(kernels::kAttendTile << i, n_ctx), false, i));
  }
  if (exchange_.tail().q != nullptr) {
    ASSIGN_OR_RETURN(tail_graph_, Capture(form_, n_ctx, true, NumSizes(n_ctx)));
  }
  return device_->Synchronize();
}

int64_t DeviceDecode::max_steps() const {
  return MaxOperations(layers_->options(), layers_->config().n_layers);
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> DeviceDecode::Capture(StepForm form,
                                                                   int64_t n_positions,
                                                                   bool has_tail, int64_t number) {
  std::vector<kernels::ProgramStep> steps;
  kernels::DeviceProgram program;
  uint8_t* place = nullptr;
  if (form == StepForm::kResident) {
    steps.resize(max_steps());
    program = {.steps = steps.data(), .max_steps = max_steps()};
    place = programs_ + number * ProgramBytes(max_steps());
  }
  RETURN_IF_ERROR(device_->BeginCapture());
  const absl::Status status =
      Enqueue(n_positions, has_tail, place == nullptr ? nullptr : &program, place);
  absl::StatusOr<std::unique_ptr<DeviceGraph>> captured = device_->EndCapture();
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(captured.status());
  if (place == nullptr) return captured;
  RETURN_IF_ERROR(device_->Upload(place + kBarrierBytes, steps.data(),
                                  program.n_steps * static_cast<int64_t>(sizeof(steps[0]))));
  RETURN_IF_ERROR(device_->Synchronize());  // before the steps on the host are gone
  return captured;
}

// place: of the device, the program's barrier and steps.
absl::Status DeviceDecode::Enqueue(int64_t n_positions, bool has_tail,
                                   kernels::DeviceProgram* program, uint8_t* place) {
  RETURN_IF_ERROR(device_->Upload(control_, staged_, sizeof(Control)));
  RETURN_IF_ERROR(layers_->Upload());
  kernels::DeviceStream* stream = device_->stream();
  stream->program = program;
  const absl::Status status = EnqueueLayers(n_positions, has_tail);
  stream->program = nullptr;
  RETURN_IF_ERROR(status);
  if (program != nullptr) {
    RETURN_IF_ERROR(device_->Fill(place, 0, kBarrierBytes));
    RETURN_IF_ERROR(device_->Check(
        device_->ops().run_program(
            stream, *program, reinterpret_cast<const kernels::ProgramStep*>(place + kBarrierBytes),
            reinterpret_cast<uint32_t*>(place)),
        "run_program"));
  }
  return device_->Download(staged_, control_, sizeof(Control));
}

absl::Status DeviceDecode::EnqueueLayers(int64_t n_positions, bool has_tail) {
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
  return layers_->Logits(1);  // whether or not the token wants them
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
  const size_t i = NumSizes(layers_->max_position() + 1) - 1;
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
