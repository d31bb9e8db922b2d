// Choosing neurons, and the three products over those chosen: launches.
#include "gpu_worker/device_ffn.h"

#include <algorithm>
#include <limits>

#include "common/util/status_macros.h"
#include "gpu_worker/carver.h"

namespace thermocline {
namespace {

// Whose partial sums of ffn_down, or scores of others' neurons, lie in the workspace at a time.
constexpr int64_t kDownTokens = 16;
constexpr float kEverything = std::numeric_limits<float>::quiet_NaN();  // device_ops.h, thresholds

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// [kAsPlanned, kOff, kExact], as TokenMode numbers them.
void SetThresholds(float planned, float exact, kernels::DeviceSelection* selection) {
  static_assert(static_cast<int>(TokenMode::kOff) == 1 && static_cast<int>(TokenMode::kExact) == 2);
  selection->thresholds[0] = planned;
  selection->thresholds[1] = kEverything;
  selection->thresholds[2] = exact;
}

int64_t BytesOfRow(const kernels::DeviceMatrix& matrix) {
  const kernels::DeviceRowBytes bytes = kernels::device_row_bytes(matrix);
  return bytes.quants + bytes.high + bytes.scales + bytes.d;
}

}  // namespace

DeviceFfn::Sizes DeviceFfn::SizesOf(const ModelConfig& config, const ShardSpec& spec,
                                    const Predictor* predictor, int64_t max_tokens) {
  Sizes sizes;
  sizes.max_tokens = max_tokens;
  sizes.d_model = config.d_model;
  sizes.n_layers = static_cast<int64_t>(spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    sizes.max_neurons = std::max(sizes.max_neurons, TotalSize(spec.layers[i].neurons));
    sizes.max_decided = std::max(sizes.max_decided, TotalSize(spec.layers[i].decided));
    if (spec.layers[i].mode != Sparsity::kPredict || predictor == nullptr) continue;
    sizes.max_rank = std::max(sizes.max_rank, predictor->layers[i].rank);
  }
  sizes.max_streamed = NeuronStreamer::MaxNeurons(spec);
  return sizes;
}

DeviceFfn::Sizes DeviceFfn::SizesOf(const DeviceShard& shard, int64_t max_tokens) {
  Sizes sizes = SizesOf(shard.config(), shard.spec(), nullptr, max_tokens);
  for (const DeviceLayer& layer : shard.layers()) {
    sizes.max_rank = std::max(sizes.max_rank, layer.predictor.fc1.n_rows);
  }
  return sizes;
}

int64_t DeviceFfn::Place(const Sizes& sizes, uint8_t* base, Buffers* buffers) {
  Carver carver(base);
  const auto take_rows = [&](int64_t width, kernels::DeviceRows* rows) {
    carver.Take(sizes.max_tokens * width, &rows->q);
    carver.Take(sizes.max_tokens * width / 32, &rows->scale);
    carver.Take(sizes.max_tokens * width / 32, &rows->sum);
  };
  const int64_t n = sizes.max_tokens, neuron_stride = RoundUp(sizes.max_width(), 4);
  const int64_t rank_stride = RoundUp(sizes.max_rank, 32);
  carver.Take(n * neuron_stride, &buffers->gate);
  carver.Take(n * neuron_stride, &buffers->up);
  carver.Take(n * rank_stride, &buffers->hidden);
  take_rows(rank_stride > 0 ? sizes.d_model : 0, &buffers->residual_q);
  take_rows(rank_stride, &buffers->hidden_q);
  carver.Take(std::min(n, kDownTokens) * RoundUp(sizes.max_decided, 4), &buffers->decided);
  carver.Take(sizes.max_neurons, &buffers->rows);
  carver.Take(1, &buffers->n_rows);
  carver.Take(n * sizes.max_neurons, &buffers->mask);
  carver.Take(n, &buffers->classes);
  carver.Take(sizes.n_layers, &buffers->counts);
  carver.Take(
      kernels::add_neurons_bytes(sizes.max_neurons, sizes.d_model, std::min(n, kDownTokens)),
      &buffers->down);
  return carver.n_bytes();
}

int64_t DeviceFfn::WorkspaceBytes(const Sizes& sizes) {
  Buffers unused;
  return Place(sizes, nullptr, &unused);
}

int64_t DeviceFfn::PlaceStaged(const Sizes& sizes, uint8_t* base, Staged* staged) {
  Carver carver(base);
  carver.Take(sizes.max_tokens, &staged->classes);
  carver.Take(sizes.n_layers, &staged->counts);
  return carver.n_bytes();
}

int64_t DeviceFfn::HostBytes(const Sizes& sizes) {
  Staged unused;
  return PlaceStaged(sizes, nullptr, &unused);
}

DeviceFfn::DeviceFfn(const DeviceShard* shard, Device* device, DeviceProduct* product,
                     DeviceTrace* trace, const Sizes& sizes, uint8_t* workspace, uint8_t* host)
    : shard_(shard),
      device_(device),
      product_(product),
      trace_(trace),
      ops_(device->ops()),
      sizes_(sizes),
      neuron_stride_(RoundUp(sizes.max_width(), 4)),
      rank_stride_(RoundUp(sizes.max_rank, 32)),
      is_sparse_(std::any_of(shard->layers().begin(), shard->layers().end(),
                             [](const DeviceLayer& layer) {
                               return layer.n_decided > 0 ||
                                      (layer.n_neurons > 0 && layer.mode != Sparsity::kOff);
                             })),
      counts_(sizes.n_layers) {
  Place(sizes, workspace, &buffers_);
  PlaceStaged(sizes, host, &staged_);
}

void DeviceFfn::Stage(const std::vector<StepToken>& tokens) {
  n_tokens_ = static_cast<int64_t>(tokens.size());
  std::transform(tokens.begin(), tokens.end(), staged_.classes,
                 [](const StepToken& token) { return static_cast<uint8_t>(token.mode); });
}

absl::Status DeviceFfn::BeginStep() {
  if (is_sparse_) {
    RETURN_IF_ERROR(device_->Upload(buffers_.classes, staged_.classes, n_tokens_));
  }
  return device_->Fill(buffers_.counts, 0,
                       sizes_.n_layers * static_cast<int64_t>(sizeof(DeviceCounts)));
}

absl::Status DeviceFfn::Product(const kernels::DeviceMatrix& weights, const kernels::RowList& list,
                                const kernels::DeviceRows& q, const float* x, int64_t x_stride,
                                float* out, int64_t out_stride) {
  return device_->Check(
      ops_.matmul(device_->stream(), weights, list, q, x, x_stride, n_tokens_, out, out_stride),
      "matmul");
}

absl::Status DeviceFfn::Run(int64_t index, const Input& input, float* out, const StreamHost& host) {
  if (shard_->layers()[index].n_neurons > 0) RETURN_IF_ERROR(RunOwn(index, input, out));
  return streams(index) ? RunStreamed(index, input, out, host) : absl::OkStatus();
}

absl::Status DeviceFfn::RunStreamed(int64_t index, const Input& input, float* out,
                                    const StreamHost& host) {
  static_assert(kMinStreamTokens >= kGemmTokens);
  NeuronStreamer* streamer = shard_->streamer();
  bool adds = shard_->layers()[index].n_neurons > 0;
  for (int64_t i = 0; i < streamer->n_chunks(index); ++i) {
    ASSIGN_OR_RETURN(const NeuronStreamer::Chunk chunk, streamer->Load(index, i, host));
    const int64_t n_neurons = chunk.gate.n_rows;
    RETURN_IF_ERROR(product_->SetInput(input.normed, sizes_.d_model, sizes_.d_model, n_tokens_));
    RETURN_IF_ERROR(product_->Multiply(chunk.gate, buffers_.gate, neuron_stride_));
    RETURN_IF_ERROR(product_->Multiply(chunk.up, buffers_.up, neuron_stride_));
    RETURN_IF_ERROR(Gated(n_neurons, /*mask=*/nullptr));
    RETURN_IF_ERROR(product_->SetInput(buffers_.gate, neuron_stride_, n_neurons, n_tokens_));
    RETURN_IF_ERROR(product_->AddNeurons(chunk.down, out, adds));
    adds = true;
  }
  return trace_->Mark(TraceOp::kStream);
}

absl::Status DeviceFfn::RunOwn(int64_t index, const Input& input, float* out) {
  const DeviceLayer& layer = shard_->layers()[index];
  DeviceCounts* counts = buffers_.counts + index;
  if (layer.mode == Sparsity::kPredict) {
    if (!decides(index)) RETURN_IF_ERROR(Hidden(layer, input));
    RETURN_IF_ERROR(Choose(layer, counts));
    RETURN_IF_ERROR(trace_->Mark(TraceOp::kChoose));
  }
  RETURN_IF_ERROR(is_prompt() ? GatesAndUpsOfPrompt(layer, input, counts)
                              : GatesAndUps(layer, input, counts));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kUp));
  RETURN_IF_ERROR(Gated(layer.n_neurons, layer.mode == Sparsity::kOff ? nullptr : buffers_.mask));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kActivate));
  RETURN_IF_ERROR(is_prompt() ? DownOfPrompt(layer, out) : Down(layer, out));
  return trace_->Mark(TraceOp::kDown);
}

absl::Status DeviceFfn::GatesAndUps(const DeviceLayer& layer, const Input& input,
                                    DeviceCounts* counts) {
  const kernels::RowList all, list = {buffers_.rows, buffers_.n_rows, layer.n_neurons};
  const bool is_sparse = layer.mode != Sparsity::kOff, predicts = layer.mode == Sparsity::kPredict;
  RETURN_IF_ERROR(Product(layer.gate, predicts ? list : all, input.q, input.normed, sizes_.d_model,
                          buffers_.gate, neuron_stride_));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kGate));
  if (is_sparse) RETURN_IF_ERROR(Fire(layer, counts));
  return Product(layer.up, is_sparse ? list : all, input.q, input.normed, sizes_.d_model,
                 buffers_.up, neuron_stride_);
}

absl::Status DeviceFfn::GatesAndUpsOfPrompt(const DeviceLayer& layer, const Input& input,
                                            DeviceCounts* counts) {
  RETURN_IF_ERROR(product_->SetInput(input.normed, sizes_.d_model, sizes_.d_model, n_tokens_));
  RETURN_IF_ERROR(product_->Multiply(layer.gate, buffers_.gate, neuron_stride_));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kGate));
  if (layer.mode != Sparsity::kOff) RETURN_IF_ERROR(Fire(layer, counts));
  return product_->Multiply(layer.up, buffers_.up, neuron_stride_);
}

absl::Status DeviceFfn::Hidden(const DeviceLayer& layer, const Input& input) {
  const DevicePredictor& predictor = layer.predictor;
  kernels::DeviceStream* stream = device_->stream();
  const int64_t d_model = sizes_.d_model, rank = predictor.fc1.n_rows;
  const float* x = input.normed;
  kernels::DeviceRows q = input.q;
  if (predictor.reads_residual) {
    x = input.residual;
    q = buffers_.residual_q;
    q.stride = d_model;
    RETURN_IF_ERROR(
        device_->Check(ops_.quantize(stream, x, d_model, n_tokens_, d_model, q), "quantize"));
  }
  RETURN_IF_ERROR(Product(predictor.fc1, {}, q, x, d_model, buffers_.hidden, rank_stride_));
  const kernels::DeviceRows hidden_q = HiddenRows(predictor);
  if (predictor.has_relu) {
    return device_->Check(ops_.relu_mul(stream, buffers_.hidden, nullptr, rank_stride_, nullptr,
                                        n_tokens_, rank, buffers_.hidden, hidden_q),
                          "relu");
  }
  if (hidden_q.q == nullptr) return absl::OkStatus();
  return device_->Check(
      ops_.quantize(stream, buffers_.hidden, rank_stride_, n_tokens_, rank, hidden_q), "quantize");
}

// The hidden layer in int8, if fc2 reads that.
kernels::DeviceRows DeviceFfn::HiddenRows(const DevicePredictor& predictor) const {
  const bool has_own = predictor.fc2.n_rows > 0;
  const kernels::DeviceMatrix& fc2 = has_own ? predictor.fc2 : predictor.decided_fc2;
  kernels::DeviceRows rows;
  if (!type_info(fc2.type)->is_float) rows = buffers_.hidden_q;
  rows.stride = predictor.fc1.n_rows;
  return rows;
}

absl::Status DeviceFfn::Decide(int64_t index, const Input& input) {
  const DeviceLayer& layer = shard_->layers()[index];
  const DevicePredictor& predictor = layer.predictor;
  RETURN_IF_ERROR(Hidden(layer, input));
  const int64_t stride = RoundUp(sizes_.max_decided, 4);
  for (int64_t begin = 0; begin < n_tokens_; begin += kDownTokens) {
    const int64_t n = std::min(kDownTokens, n_tokens_ - begin);
    kernels::DeviceRows hidden_q = HiddenRows(predictor);
    if (hidden_q.q != nullptr) {
      hidden_q.q += begin * hidden_q.stride;
      hidden_q.scale += begin * hidden_q.stride / 32;
      hidden_q.sum += begin * hidden_q.stride / 32;
    }
    RETURN_IF_ERROR(device_->Check(ops_.matmul(device_->stream(), predictor.decided_fc2, {},
                                               hidden_q, buffers_.hidden + begin * rank_stride_,
                                               rank_stride_, n, buffers_.decided, stride),
                                   "matmul"));
    kernels::DeviceSelection selection = {.scores = buffers_.decided,
                                          .stride = stride,
                                          .bias = predictor.decided_bias,
                                          .classes = buffers_.classes + begin,
                                          .n_tokens = n,
                                          .n_rows = layer.n_decided};
    SetThresholds(layer.threshold, kEverything, &selection);
    RETURN_IF_ERROR(
        device_->Check(ops_.select_bits(device_->stream(), selection,
                                        choices_.bits + begin * choices_.stride, choices_.stride),
                       "select_bits"));
  }
  return trace_->Mark(TraceOp::kChoose);
}

absl::Status DeviceFfn::Choose(const DeviceLayer& layer, DeviceCounts* counts) {
  const DevicePredictor& predictor = layer.predictor;
  RETURN_IF_ERROR(Product(predictor.fc2, {}, HiddenRows(predictor), buffers_.hidden, rank_stride_,
                          buffers_.up, neuron_stride_));
  kernels::DeviceSelection selection = {.scores = buffers_.up,
                                        .stride = neuron_stride_,
                                        .bias = predictor.bias,
                                        .classes = buffers_.classes,
                                        .n_tokens = n_tokens_,
                                        .n_rows = layer.n_neurons};
  SetThresholds(layer.threshold, kEverything, &selection);
  return device_->Check(ops_.select(device_->stream(), selection, buffers_.rows, buffers_.n_rows,
                                    buffers_.mask, counts->chosen),
                        "select");
}

// Of the neurons whose gates were computed.
absl::Status DeviceFfn::Fire(const DeviceLayer& layer, DeviceCounts* counts) {
  kernels::DeviceSelection selection = {.scores = buffers_.gate,
                                        .stride = neuron_stride_,
                                        .is_magnitude = !IsRelu(shard_->config().activation),
                                        .classes = buffers_.classes,
                                        .is_among_mask = layer.mode == Sparsity::kPredict,
                                        .n_tokens = n_tokens_,
                                        .n_rows = layer.n_neurons};
  SetThresholds(layer.mode == Sparsity::kThreshold ? layer.threshold : 0.0f, 0.0f, &selection);
  RETURN_IF_ERROR(device_->Check(ops_.select(device_->stream(), selection, buffers_.rows,
                                             buffers_.n_rows, buffers_.mask, counts->fired),
                                 "select"));
  return trace_->Mark(TraceOp::kFire);
}

absl::Status DeviceFfn::Gated(int64_t n_neurons, const uint8_t* mask) {
  auto gated = ops_.relu_mul;
  if (shard_->config().activation == Activation::kSilu) gated = ops_.silu_mul;
  if (shard_->config().activation == Activation::kReluRelu) gated = ops_.relu_relu_mul;
  return device_->Check(gated(device_->stream(), buffers_.gate, buffers_.up, neuron_stride_, mask,
                              n_tokens_, n_neurons, buffers_.gate, {}),
                        "act_mul");
}

absl::Status DeviceFfn::Down(const DeviceLayer& layer, float* out) {
  for (int64_t begin = 0; begin < n_tokens_; begin += kDownTokens) {
    RETURN_IF_ERROR(device_->Check(
        ops_.add_neurons(device_->stream(), layer.down, {}, buffers_.gate + begin * neuron_stride_,
                         neuron_stride_, std::min(kDownTokens, n_tokens_ - begin),
                         out + begin * sizes_.d_model, buffers_.down),
        "add_neurons"));
  }
  return absl::OkStatus();
}

absl::Status DeviceFfn::DownOfPrompt(const DeviceLayer& layer, float* out) {
  RETURN_IF_ERROR(product_->SetInput(buffers_.gate, neuron_stride_, layer.n_neurons, n_tokens_));
  return product_->AddNeurons(layer.down, out);
}

absl::Status DeviceFfn::EndStep() {
  return device_->Download(staged_.counts, buffers_.counts,
                           sizes_.n_layers * static_cast<int64_t>(sizeof(DeviceCounts)));
}

void DeviceFfn::CollectCounts() {
  if (streams()) return;
  for (int64_t i = 0; i < sizes_.n_layers; ++i) {
    const DeviceLayer& layer = shard_->layers()[i];
    if (layer.mode == Sparsity::kOff || layer.n_neurons == 0) continue;
    const DeviceCounts& step = staged_.counts[i];
    const bool predicts = layer.mode == Sparsity::kPredict;
    const auto n_neurons = static_cast<uint64_t>(layer.n_neurons);
    const auto n_all = n_neurons * static_cast<uint64_t>(n_tokens_);
    const auto down_bytes = static_cast<uint64_t>(kernels::device_neuron_bytes(layer.down));
    FfnCounts& counts = counts_[i];
    counts.tokens += static_cast<uint64_t>(n_tokens_);
    counts.neurons += n_all;
    counts.computed += predicts ? step.chosen[0] : n_all;
    counts.fired += step.fired[0];
    const uint64_t n_gates = predicts && !is_prompt() ? step.chosen[1] : n_neurons;
    const uint64_t n_others = is_prompt() ? n_neurons : step.fired[1];
    counts.bytes += n_gates * static_cast<uint64_t>(BytesOfRow(layer.gate)) +
                    n_others * static_cast<uint64_t>(BytesOfRow(layer.up)) +
                    n_others * down_bytes / n_neurons;
    if (!predicts) continue;
    const DevicePredictor& predictor = layer.predictor;
    for (const kernels::DeviceMatrix& matrix :
         {predictor.fc1, predictor.fc2, predictor.decided_fc2}) {
      counts.bytes += static_cast<uint64_t>(kernels::device_matrix_bytes(matrix));
    }
  }
}

}  // namespace thermocline
