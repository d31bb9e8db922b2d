// Opens the device, lays the shard out on it, serves.
#include "gpu_worker/worker.h"

#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "gpu_worker/memory_need.h"

namespace thermocline {
namespace {

absl::Status CheckNumbers(const worker::v1::ConfigureRequest& request) {
  if (request.f32_activations() || (request.kv_type() != "f16" && request.kv_type() != "q8_0")) {
    return absl::UnimplementedError(
        fmt::format("{}: a GPU computes with int8 activations and a KV cache of f16 or q8_0; leave "
                    "out --activations f32 and --kv-type f32, or take --gpu-device none",
                    request.device()));
  }
  if (request.measures_recall()) {
    return absl::UnimplementedError(
        fmt::format("{}: a GPU does not count what a predictor misses; take --gpu-device none with "
                    "--measure-recall",
                    request.device()));
  }
  return absl::OkStatus();
}

absl::Status NoCapture() {
  return absl::UnimplementedError(
      "a GPU rank keeps no firings and no inputs; start the fleet with --gpu-device none for that");
}

}  // namespace

absl::StatusOr<worker::v1::ConfigureResponse> GpuWorker::SetUp(
    const worker::v1::ConfigureRequest& request, const OpenedModel& model) {
  if (request.device().empty()) {
    return absl::InvalidArgumentError("this is a GPU worker, and the plan names no device for it");
  }
  RETURN_IF_ERROR(CheckNumbers(request));
  RETURN_IF_ERROR(CheckRange("memory_bytes", request.memory_bytes(), 0, int64_t{1} << 50));
  ASSIGN_OR_RETURN(device_, OpenDevice(request.device()));
  ASSIGN_OR_RETURN(const DeviceMemory memory, device_->Memory());
  free_bytes_ = memory.free_bytes;
  promised_bytes_ = request.memory_bytes();
  forward_options_ = {model.exchange_shape.max_tokens,
                      model.exchange_shape.max_logit_rows,
                      request.n_slots(),
                      request.n_ctx(),
                      model.exchange_shape.tail.begin,
                      trace()};
  const int64_t workspace =
      DeviceLayers::WorkspaceBytes(model.config, model.spec, forward_options_, &model.predictor);
  graph_bytes_ = DeviceDecode::GraphBytes(forward_options_, model.config.n_layers,
                                          device_->graph_node_bytes());
  const DeviceShard::Options options = {.n_slots = request.n_slots(),
                                        .n_ctx = forward_options_.device_ctx(),
                                        .workspace_bytes = workspace,
                                        .budget_bytes = request.memory_bytes(),
                                        .kv_type = request.kv_type() == "q8_0"
                                                       ? kernels::DeviceKvType::kQ8_0
                                                       : kernels::DeviceKvType::kF16,
                                        .graph_bytes = graph_bytes_};
  ASSIGN_OR_RETURN(shard_,
                   DeviceShard::Create(model.file.get(), model.config, model.spec, options,
                                       device_.get(), model.of_predictor(), &model.predictor));
  if (shard_->streamer() != nullptr) file_ = model.file;
  worker::v1::ConfigureResponse response;
  response.set_device(device_->description());
  response.set_weight_bytes(shard_->weight_bytes());
  response.set_kv_bytes(shard_->kv_bytes());
  response.set_node(request.node());
  return response;
}

absl::Status GpuWorker::Load(const std::function<bool(int64_t, int64_t)>& on_progress) {
  RETURN_IF_ERROR(shard_->Load(on_progress));
  ASSIGN_OR_RETURN(forward_, DeviceForward::Create(shard_.get(), device_.get(), forward_options_));
  return absl::OkStatus();
}

absl::Status GpuWorker::PrepareSteps(Exchange& exchange) {
  RETURN_IF_ERROR(forward_->Prepare(exchange));
  ASSIGN_OR_RETURN(const DeviceMemory memory, device_->Memory());
  return CheckTaken(device_->name(), promised_bytes_, free_bytes_ - memory.free_bytes);
}

absl::Status GpuWorker::RunSteps(Exchange& exchange) { return forward_->Serve(exchange); }

// Each refers to those below it.
void GpuWorker::Drop() {
  forward_.reset();
  shard_.reset();
  file_.reset();
  device_.reset();
}

void GpuWorker::FillStats(worker::v1::StatsResponse* response) const {
  response->set_weight_bytes(shard_->weight_bytes());
  response->set_kv_bytes(shard_->kv_bytes());
  response->set_buffer_bytes(shard_->buffer_bytes());
  response->set_graph_bytes(graph_bytes_);
  response->set_n_threads(1);
  response->set_device(device_->description());
  if (forward_ == nullptr) return;
  const DeviceForward::Totals totals = forward_->totals();
  response->set_steps(totals.steps);
  response->mutable_times()->set_step_ns(totals.step_ns);
  response->set_step_form(totals.step_form);
  AddFfnCounts(totals.ffn, response);
}

absl::StatusOr<std::unique_ptr<ReadTest>> GpuWorker::PrepareReadTest(int64_t) const {
  return absl::UnimplementedError("a GPU rank measures no plain reads");
}

absl::StatusOr<worker::v1::StartCaptureResponse> GpuWorker::StartCapture(
    const worker::v1::StartCaptureRequest&) {
  return NoCapture();
}

absl::StatusOr<std::shared_ptr<const CaptureView>> GpuWorker::ReadCapture(int32_t) const {
  return NoCapture();
}

}  // namespace thermocline
