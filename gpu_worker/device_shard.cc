// Which rows and columns of which tensors a GPU rank needs, and sending them.
#include "gpu_worker/device_shard.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "gpu_worker/carver.h"
#include "gpu_worker/memory_need.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<DeviceShard>> DeviceShard::Create(
    const GgufFile* file, const ModelConfig& config, const ShardSpec& spec, const Options& options,
    Device* device, const GgufFile* predictor_file, const Predictor* predictor) {
  const bool attends =
      std::any_of(spec.layers.begin(), spec.layers.end(),
                  [](const ShardSpec::Layer& layer) { return layer.kv_heads.size() > 0; });
  if (attends && !kernels::device_has_head(config.d_head)) {
    return absl::UnimplementedError(
        fmt::format("{}: attention heads of {} values are not computed on a GPU, only multiples of "
                    "4 up to {}; take --gpu-device none, or a plan that leaves attention to CPU "
                    "ranks",
                    file->path(), config.d_head, kernels::kMaxDeviceHead));
  }
  std::unique_ptr<DeviceShard> shard(new DeviceShard());
  shard->file_ = file;
  shard->predictor_file_ = predictor_file;
  shard->predictor_ = predictor;
  shard->device_ = device;
  shard->options_ = options;
  shard->config_ = config;
  shard->spec_ = spec;
  if (const GgufTensor* factors = FindRole(*file, Role::kRopeFreqs)) {
    shard->rope_factors_.resize(factors->n_bytes / sizeof(float));
    std::memcpy(shard->rope_factors_.data(), file->TensorBytes(*factors).data(), factors->n_bytes);
  }
  shard->layers_.resize(spec.layers.size());  // before pointers into it are taken
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    RETURN_IF_ERROR(shard->PlanLayer(static_cast<int64_t>(i), spec.layers[i]));
    kernels::DeviceKv& kv = shard->layers_[i].kv;
    kv.type = options.kv_type;
    kv.n_ctx = options.n_ctx;
    kv.n_kv_heads = static_cast<int32_t>(spec.layers[i].kv_heads.size());
    kv.d_head = static_cast<int32_t>(config.d_head);
    shard->kv_bytes_ += shard->PlaceKv(nullptr, &kv);
  }
  const GgufTensor* output = FindRole(*file, Role::kOutput);
  if (output == nullptr) output = FindRole(*file, Role::kTokenEmbedding);
  shard->AddMatrix(file, output, {spec.vocab}, {0, config.d_model}, &shard->output_);
  shard->AddVector(file, shard->Tensor(Role::kOutputNorm, 0), {{0, config.d_model}},
                   &shard->output_norm_);
  if (NeuronStreamer::MaxNeurons(spec) > 0) {
    shard->streamer_ =
        std::make_unique<NeuronStreamer>(file, &shard->spec_, shard->config_.d_model, device);
  }
  RETURN_IF_ERROR(shard->TakeMemory());
  return shard;
}

int64_t DeviceShard::PlaceKv(uint8_t* base, kernels::DeviceKv* kv) const {
  Carver carver(base);
  const int64_t n =
      options_.n_slots * kv->n_ctx * kv->n_kv_heads * kernels::device_kv_row(kv->d_head);
  const bool is_f16 = kv->type == kernels::DeviceKvType::kF16;
  const int64_t n_bytes = is_f16 ? n * 2 : n, n_scales = is_f16 ? 0 : n / 32;
  uint8_t *k = nullptr, *v = nullptr;
  carver.Take(n_bytes, &k);
  carver.Take(n_bytes, &v);
  carver.Take(n_scales, &kv->k_scale);
  carver.Take(n_scales, &kv->v_scale);
  kv->k = k;
  kv->v = v;
  return carver.n_bytes();
}

absl::Status DeviceShard::TakeMemory() {
  for (const Job& job : jobs_) weight_bytes_ += AlignedImage(job.pack.n_bytes);
  const int64_t workspace = AlignedImage(options_.workspace_bytes);
  const auto is_whole = [this](const DeviceLayer& layer) {
    return layer.n_kv_heads == config_.n_kv_heads && layer.n_neurons == config_.d_ff;
  };
  const auto is_absent = [](const DeviceLayer& layer) {
    return layer.n_kv_heads == 0 && layer.n_neurons == 0;
  };
  const auto n_whole = std::count_if(layers_.begin(), layers_.end(), is_whole);
  const auto n_absent = std::count_if(layers_.begin(), layers_.end(), is_absent);
  ASSIGN_OR_RETURN(const DeviceMemory memory, device_->Memory());
  const MemoryNeed need = {
      .weight_bytes = weight_bytes_,
      .kv_bytes = kv_bytes_,
      .buffer_bytes = workspace + (streamer_ != nullptr ? streamer_->area_bytes() : 0),
      .graph_bytes = options_.graph_bytes,
      .budget_bytes = options_.budget_bytes,
      .free_bytes = memory.free_bytes,
      .n_ctx = options_.n_ctx,
      .n_whole_layers = n_whole + n_absent == std::ssize(layers_) ? n_whole : 0};
  if (!need.fits()) {
    return absl::ResourceExhaustedError(fmt::format("{}: {}", device_->name(), need.Describe()));
  }
  const int64_t total = need.total_bytes() - need.graph_bytes;
  buffer_bytes_ = need.buffer_bytes;
  ASSIGN_OR_RETURN(uint8_t * memory_at, device_->Allocate(std::max(total, kImageAlignment)));
  for (Job& job : jobs_) {
    job.at = memory_at;
    job.place(memory_at);
    memory_at += AlignedImage(job.pack.n_bytes);
  }
  kv_ = memory_at;
  for (DeviceLayer& layer : layers_) memory_at += PlaceKv(memory_at, &layer.kv);
  workspace_ = memory_at;
  return streamer_ != nullptr ? streamer_->SetUp(workspace_ + workspace) : absl::OkStatus();
}

const GgufTensor* DeviceShard::Tensor(Role role, int64_t layer) const {
  const GgufTensor* tensor = FindRole(*file_, role, layer);
  THERMOCLINE_CHECK(tensor != nullptr);  // CheckTensors has seen the file
  return tensor;
}

absl::Status DeviceShard::PlanLayer(int64_t index, const ShardSpec::Layer& spec) {
  DeviceLayer& layer = layers_[index];
  layer.n_kv_heads = spec.kv_heads.size();
  layer.n_neurons = TotalSize(spec.neurons);
  layer.n_decided = TotalSize(spec.decided);
  layer.mode = spec.mode;
  layer.threshold = spec.threshold;
  const Range all = {0, config_.d_model};
  AddVector(file_, Tensor(Role::kAttentionNorm, index), {all}, &layer.attention_norm);
  AddVector(file_, Tensor(Role::kFfnNorm, index), {all}, &layer.ffn_norm);
  const int64_t kv_width = config_.d_head;                        // rows of one KV head in k and v
  const int64_t q_width = config_.d_head * config_.group_size();  // rows of its query heads in q
  const Range q_rows = {spec.kv_heads.begin * q_width, spec.kv_heads.end * q_width};
  const Range kv_rows = {spec.kv_heads.begin * kv_width, spec.kv_heads.end * kv_width};
  if (layer.n_kv_heads > 0) {
    AddMatrix(Role::kAttentionQ, index, {q_rows}, all, &layer.q);
    AddMatrix(Role::kAttentionK, index, {kv_rows}, all, &layer.k);
    AddMatrix(Role::kAttentionV, index, {kv_rows}, all, &layer.v);
    AddMatrix(Role::kAttentionOutput, index, {all}, q_rows, &layer.o);
  }
  if (layer.n_decided > 0 || (layer.n_neurons > 0 && spec.mode == Sparsity::kPredict)) {
    RETURN_IF_ERROR(PlanPredictor(index, spec));
  }
  if (layer.n_neurons == 0) return absl::OkStatus();
  AddMatrix(Role::kFfnGate, index, spec.neurons, all, &layer.gate);
  AddMatrix(Role::kFfnUp, index, spec.neurons, all, &layer.up);
  PlanDown(index, spec);
  return absl::OkStatus();
}

absl::Status DeviceShard::PlanPredictor(int64_t index, const ShardSpec::Layer& spec) {
  if (predictor_ == nullptr) {
    return absl::FailedPreconditionError("sparsity predict needs a predictor, and there is none");
  }
  const PredictorLayer& from = predictor_->layers[index];
  const int64_t unit = from.fc2->info()->is_float ? 8 : 32;
  if (from.rank % unit != 0) {
    return absl::UnimplementedError(
        fmt::format("{}: rank {} of layer {} is not a multiple of {}, as a GPU needs it",
                    predictor_file_->path(), from.rank, index, unit));
  }
  DevicePredictor* predictor = &layers_[index].predictor;
  predictor->has_relu = predictor_->has_relu;
  predictor->reads_residual = predictor_->reads_residual;
  AddMatrix(predictor_file_, from.fc1, {{0, from.rank}}, {0, config_.d_model}, &predictor->fc1);
  const auto add_part = [&](const std::vector<Range>& neurons, kernels::DeviceMatrix* fc2,
                            const float** bias) {
    if (neurons.empty()) return;
    AddMatrix(predictor_file_, from.fc2, neurons, {0, from.rank}, fc2);
    if (from.bias != nullptr) AddVector(predictor_file_, from.bias, neurons, bias);
  };
  add_part(spec.neurons, &predictor->fc2, &predictor->bias);
  add_part(spec.decided, &predictor->decided_fc2, &predictor->decided_bias);
  return absl::OkStatus();
}

void DeviceShard::AddMatrix(Role role, int64_t layer, const std::vector<Range>& rows, Range cols,
                            kernels::DeviceMatrix* matrix) {
  AddMatrix(file_, Tensor(role, layer), rows, cols, matrix);
}

void DeviceShard::AddMatrix(const GgufFile* file, const GgufTensor* tensor,
                            const std::vector<Range>& rows, Range cols,
                            kernels::DeviceMatrix* matrix) {
  PackJob pack = PackRows(file, tensor, rows, cols, matrix);
  jobs_.push_back(
      {std::move(pack), [matrix](uint8_t* at) { kernels::place_device_matrix(at, matrix); }});
}

void DeviceShard::PlanDown(int64_t index, const ShardSpec::Layer& spec) {
  kernels::DeviceNeurons* down = &layers_[index].down;
  PackJob pack = PackNeurons(file_, index, spec.neurons, config_.d_model, down);
  jobs_.push_back(
      {std::move(pack), [down](uint8_t* at) { kernels::place_device_neurons(at, down); }});
}

void DeviceShard::AddVector(const GgufFile* file, const GgufTensor* tensor,
                            const std::vector<Range>& elements, const float** vector) {
  jobs_.push_back({PackVector(file, tensor, elements),
                   [vector](uint8_t* at) { *vector = reinterpret_cast<const float*>(at); }});
}

absl::Status DeviceShard::Load(const std::function<bool(int64_t, int64_t)>& on_progress) {
  int64_t n_bytes = 0, done = 0;
  for (const Job& job : jobs_) n_bytes = std::max(n_bytes, job.pack.n_bytes);
  // While one image goes to the device the next one is packed.
  std::array<uint8_t*, 2> images;
  for (uint8_t*& image : images) {
    ASSIGN_OR_RETURN(image, device_->AllocateHost(std::max(n_bytes, kImageAlignment)));
  }
  for (const Job& job : jobs_) {
    std::fill_n(images[0], job.pack.n_bytes, uint8_t{0});  // padding is sent, too
    Pack({&job.pack, 1}, images[0]);
    RETURN_IF_ERROR(device_->Synchronize());
    RETURN_IF_ERROR(device_->Upload(job.at, images[0], job.pack.n_bytes));
    std::swap(images[0], images[1]);
    const GgufTensor* tensor = job.pack.tensor;
    job.pack.file->DropPages(tensor->file_offset, tensor->n_bytes);
    done += AlignedImage(job.pack.n_bytes);
    if (!on_progress(done, weight_bytes_)) return absl::CancelledError("loading was cancelled");
  }
  jobs_.clear();
  RETURN_IF_ERROR(device_->Synchronize());
  for (uint8_t* image : images) device_->FreeHost(image);
  // What no token has written is read by no one; zeros make a wrong read harmless.
  RETURN_IF_ERROR(device_->Fill(kv_, 0, kv_bytes_));
  return device_->Synchronize();
}

}  // namespace thermocline
