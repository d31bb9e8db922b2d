// The step of a GPU rank: launches, copies, exchanges.
#include "gpu_worker/device_forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/model/rope.h"
#include "common/util/status_macros.h"
#include "common/worker/check_step.h"

namespace thermocline {
namespace {

constexpr int64_t kDownTokens = 16;  // whose partial sums lie in the workspace at a time

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Hands out aligned pieces of memory, or counts them.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <typename T>
  void Take(int64_t n, T** piece) {
    if (base_ != nullptr) *piece = reinterpret_cast<T*>(base_ + n_bytes_);
    n_bytes_ += RoundUp(n * static_cast<int64_t>(sizeof(T)), 256);
  }
  int64_t n_bytes() const { return n_bytes_; }

 private:
  uint8_t* base_;
  int64_t n_bytes_ = 0;
};

}  // namespace

DeviceForward::Sizes DeviceForward::SizesOf(const ModelConfig& config, const ShardSpec& spec,
                                            const Options& options) {
  Sizes sizes;
  int64_t max_neurons = 0;
  for (const ShardSpec::Layer& layer : spec.layers) {
    const int64_t kv_width = layer.kv_heads.size() * config.d_head;
    sizes.kv_width = std::max(sizes.kv_width, kv_width);
    max_neurons = std::max(max_neurons, TotalSize(layer.neurons));
  }
  sizes.q_width = sizes.kv_width * config.group_size();
  sizes.neuron_stride = RoundUp(max_neurons, 4);
  sizes.vocab = spec.vocab.size();
  sizes.attend_bytes =
      kernels::attend_bytes(options.max_tokens, static_cast<int32_t>(sizes.q_width / config.d_head),
                            static_cast<int32_t>(config.d_head), options.n_ctx - 1);
  sizes.down_bytes = kernels::add_neurons_bytes(max_neurons, config.d_model,
                                                std::min(options.max_tokens, kDownTokens));
  return sizes;
}

int64_t DeviceForward::Place(const ModelConfig& config, const Sizes& sizes, const Options& options,
                             uint8_t* base, Buffers* buffers) {
  Carver carver(base);
  const int64_t n = options.max_tokens, d_model = config.d_model;
  const int64_t width = RoundUp(std::max(d_model, sizes.q_width), 32);
  carver.Take(n * d_model, &buffers->h);
  carver.Take(n * d_model, &buffers->normed);
  carver.Take(n * width, &buffers->input.q);
  carver.Take(n * width / 32, &buffers->input.scale);
  carver.Take(n * width / 32, &buffers->input.sum);
  carver.Take(n, &buffers->tokens);
  carver.Take(n * config.n_rot / 2, &buffers->cos);
  carver.Take(n * config.n_rot / 2, &buffers->sin);
  carver.Take(n * sizes.q_width, &buffers->q);
  carver.Take(n * sizes.kv_width, &buffers->k);
  carver.Take(n * sizes.kv_width, &buffers->v);
  carver.Take(n * sizes.q_width, &buffers->attention);
  carver.Take(n * sizes.neuron_stride, &buffers->gate);
  carver.Take(n * sizes.neuron_stride, &buffers->up);
  carver.Take(n * d_model, &buffers->partial);
  carver.Take(options.max_logit_rows * sizes.vocab, &buffers->logits);
  carver.Take(std::max(sizes.attend_bytes, sizes.down_bytes), &buffers->workspace);
  return carver.n_bytes();
}

int64_t DeviceForward::WorkspaceBytes(const ModelConfig& config, const ShardSpec& spec,
                                      const Options& options) {
  Buffers unused;
  return Place(config, SizesOf(config, spec, options), options, nullptr, &unused);
}

DeviceForward::DeviceForward(DeviceShard* shard, Device* device, const Options& options)
    : shard_(shard),
      device_(device),
      ops_(device->ops()),
      options_(options),
      config_(shard->config()),
      sizes_(SizesOf(shard->config(), shard->spec(), options)),
      frequencies_(RopeFrequencies(shard->config(), shard->rope_factors())) {
  Place(config_, sizes_, options_, shard->workspace(), &buffers_);
  const int64_t n_pairs = config_.n_rot / 2;
  places_.resize(options.max_tokens);
  cos_.resize(options.max_tokens * n_pairs);
  sin_.resize(options.max_tokens * n_pairs);
  h_.resize(options.max_tokens * config_.d_model);
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
  RETURN_IF_ERROR(LoadInputs(step));
  for (const DeviceLayer& layer : shard_->layers()) {
    if (layer.n_kv_heads > 0) RETURN_IF_ERROR(Attention(layer));
    RETURN_IF_ERROR(Combine(layer.n_kv_heads > 0, exchange));
    if (layer.n_neurons > 0) RETURN_IF_ERROR(Ffn(layer));
    RETURN_IF_ERROR(Combine(layer.n_neurons > 0, exchange));
  }
  RETURN_IF_ERROR(Output(step, exchange));
  return exchange.FinishStep();
}

absl::Status DeviceForward::LoadInputs(const Step& step) {
  tokens_.assign(step.tokens.begin(), step.tokens.end());
  RETURN_IF_ERROR(
      CheckStep(step, tokens_,
                {options_.max_tokens, options_.max_logit_rows, options_.n_slots, options_.n_ctx}));
  n_tokens_ = step.n_tokens();
  max_position_ = 0;
  const int64_t n_pairs = config_.n_rot / 2, d_model = config_.d_model;
  for (int64_t t = 0; t < n_tokens_; ++t) {
    places_[t] = {tokens_[t].slot, tokens_[t].position};
    max_position_ = std::max<int64_t>(max_position_, tokens_[t].position);
    RopeAngles(frequencies_, tokens_[t].position, cos_.data() + t * n_pairs,
               sin_.data() + t * n_pairs);
  }
  std::memcpy(h_.data(), step.x, n_tokens_ * d_model * sizeof(float));
  const auto upload = [this](void* to, const auto* from, int64_t n) {
    return device_->Upload(to, from, n * static_cast<int64_t>(sizeof(*from)));
  };
  RETURN_IF_ERROR(upload(buffers_.tokens, places_.data(), n_tokens_));
  RETURN_IF_ERROR(upload(buffers_.cos, cos_.data(), n_tokens_ * n_pairs));
  RETURN_IF_ERROR(upload(buffers_.sin, sin_.data(), n_tokens_ * n_pairs));
  return upload(buffers_.h, h_.data(), n_tokens_ * d_model);
}

absl::Status DeviceForward::Norm(const float* x, const float* weight, int64_t n_tokens) {
  kernels::DeviceRows quantized = buffers_.input;
  quantized.stride = config_.d_model;
  return device_->Check(ops_.rms_norm(device_->stream(), x, weight, n_tokens, config_.d_model,
                                      config_.norm_eps, buffers_.normed, quantized),
                        "rms_norm");
}

// x [n_tokens, width] in f32, and quantized in buffers_.input.
absl::Status DeviceForward::Product(const kernels::DeviceMatrix& weights, const float* x,
                                    int64_t width, int64_t n_tokens, float* out,
                                    int64_t out_stride) {
  kernels::DeviceRows rows = buffers_.input;
  rows.stride = width;
  return device_->Check(
      ops_.matmul(device_->stream(), weights, {}, rows, x, width, n_tokens, out, out_stride),
      "matmul");
}

absl::Status DeviceForward::Attention(const DeviceLayer& layer) {
  const int64_t kv_width = layer.n_kv_heads * config_.d_head;
  const int64_t q_width = kv_width * config_.group_size();
  const auto n_heads = static_cast<int32_t>(layer.n_kv_heads * config_.group_size());
  const int64_t d_model = config_.d_model;
  kernels::DeviceStream* stream = device_->stream();
  RETURN_IF_ERROR(Norm(buffers_.h, layer.attention_norm, n_tokens_));
  const float* x = buffers_.normed;
  RETURN_IF_ERROR(Product(layer.q, x, d_model, n_tokens_, buffers_.q, q_width));
  RETURN_IF_ERROR(Product(layer.k, x, d_model, n_tokens_, buffers_.k, kv_width));
  RETURN_IF_ERROR(Product(layer.v, x, d_model, n_tokens_, buffers_.v, kv_width));
  RETURN_IF_ERROR(device_->Check(
      ops_.rope_store(stream, buffers_.q, buffers_.k, buffers_.v, buffers_.cos, buffers_.sin,
                      config_.n_rot, buffers_.tokens, n_tokens_, n_heads, layer.kv),
      "rope_store"));
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.d_head));
  RETURN_IF_ERROR(device_->Check(
      ops_.attend(stream, buffers_.q, buffers_.tokens, n_tokens_, n_heads, layer.kv, scale,
                  /*window=*/0, max_position_, buffers_.attention, buffers_.workspace),
      "attend"));
  kernels::DeviceRows quantized = buffers_.input;
  quantized.stride = q_width;
  RETURN_IF_ERROR(device_->Check(
      ops_.quantize(stream, buffers_.attention, q_width, n_tokens_, q_width, quantized),
      "quantize"));
  return Product(layer.o, buffers_.attention, q_width, n_tokens_, buffers_.partial, d_model);
}

absl::Status DeviceForward::Ffn(const DeviceLayer& layer) {
  const int64_t d_model = config_.d_model, stride = sizes_.neuron_stride;
  kernels::DeviceStream* stream = device_->stream();
  RETURN_IF_ERROR(Norm(buffers_.h, layer.ffn_norm, n_tokens_));
  RETURN_IF_ERROR(Product(layer.gate, buffers_.normed, d_model, n_tokens_, buffers_.gate, stride));
  RETURN_IF_ERROR(Product(layer.up, buffers_.normed, d_model, n_tokens_, buffers_.up, stride));
  const auto gated = config_.activation == Activation::kSilu ? ops_.silu_mul : ops_.relu_mul;
  RETURN_IF_ERROR(device_->Check(gated(stream, buffers_.gate, buffers_.up, stride, nullptr,
                                       n_tokens_, layer.n_neurons, buffers_.gate, {}),
                                 "act_mul"));
  for (int64_t begin = 0; begin < n_tokens_; begin += kDownTokens) {
    const int64_t n = std::min(kDownTokens, n_tokens_ - begin);
    RETURN_IF_ERROR(device_->Check(
        ops_.add_neurons(stream, layer.down, {}, buffers_.gate + begin * stride, stride, n,
                         buffers_.partial + begin * d_model, buffers_.workspace),
        "add_neurons"));
  }
  return absl::OkStatus();
}

absl::Status DeviceForward::Combine(bool has_partial, Exchange& exchange) {
  const int64_t n = n_tokens_ * config_.d_model;
  const int64_t n_bytes = n * static_cast<int64_t>(sizeof(float));
  if (has_partial) {
    RETURN_IF_ERROR(device_->Download(exchange.Partial(), buffers_.partial, n_bytes));
  } else {
    exchange.NoPartial();
  }
  // Also before h_ is written: what was sent of it has arrived.
  RETURN_IF_ERROR(device_->Synchronize());
  RETURN_IF_ERROR(exchange.Arrive());
  if (exchange.sliced()) {
    exchange.AddSlice(h_.data(), exchange.slice_begin(), exchange.slice_end());
    RETURN_IF_ERROR(exchange.ArriveSlices());
  }
  exchange.Collect(h_.data(), 0, n);
  return device_->Upload(buffers_.h, h_.data(), n_bytes);
}

absl::Status DeviceForward::Output(const Step& step, Exchange& exchange) {
  const int64_t d_model = config_.d_model, n_rows = step.n_logit_rows;
  if (n_rows == 0 || sizes_.vocab == 0) return device_->Synchronize();
  for (int64_t t = 0; t < n_tokens_; ++t) {
    const int32_t row = tokens_[t].logit_row;
    if (row < 0) continue;
    float* out = buffers_.logits + row * sizes_.vocab;
    RETURN_IF_ERROR(Norm(buffers_.h + t * d_model, shard_->output_norm(), 1));
    RETURN_IF_ERROR(Product(shard_->output(), buffers_.normed, d_model, 1, out, sizes_.vocab));
    RETURN_IF_ERROR(device_->Download(exchange.Logits(row), out,
                                      sizes_.vocab * static_cast<int64_t>(sizeof(float))));
  }
  return device_->Synchronize();
}

}  // namespace thermocline
