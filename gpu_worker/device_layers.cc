// Buffers, the step's inputs, and launches.
#include "gpu_worker/device_layers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/model/rope.h"
#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "common/worker/check_step.h"
#include "gpu_worker/carver.h"

namespace thermocline {
namespace {

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

DeviceLayers::Sizes DeviceLayers::SizesOf(const ModelConfig& config, const ShardSpec& spec,
                                          const Options& options, const DeviceFfn::Sizes& ffn) {
  Sizes sizes;
  for (const ShardSpec::Layer& layer : spec.layers) {
    const int64_t kv_width = layer.kv_heads.size() * config.d_head;
    sizes.kv_width = std::max(sizes.kv_width, kv_width);
  }
  sizes.q_width = sizes.kv_width * config.group_size();
  sizes.vocab = spec.vocab.size();
  sizes.attend_bytes =
      kernels::attend_bytes(options.max_tokens, static_cast<int32_t>(sizes.q_width / config.d_head),
                            static_cast<int32_t>(config.d_head), options.device_ctx() - 1);
  sizes.ffn_bytes = DeviceFfn::WorkspaceBytes(ffn);
  sizes.decides = ffn.max_decided > 0;
  if (options.max_tokens >= kGemmTokens) {
    const int64_t width = std::max({config.d_model, sizes.q_width, ffn.max_width()});
    // No tile is larger than a matrix.
    const int64_t most = 2 * width * std::max(config.d_model, sizes.q_width);
    sizes.product = {options.max_tokens, width, std::min(kGemmTileBytes, most)};
  }
  return sizes;
}

int64_t DeviceLayers::Place(const ModelConfig& config, const Sizes& sizes, const Options& options,
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
  carver.Take(n * sizes.q_width / config.d_head * 2, &buffers->attention_state);
  carver.Take(n * d_model, &buffers->partial);
  carver.Take(sizes.decides ? n * d_model : 0, &buffers->next_h);
  carver.Take(options.max_logit_rows * sizes.vocab, &buffers->logits);
  carver.Take(options.max_logit_rows, &buffers->candidates);
  carver.Take(1, &buffers->log_sum);
  carver.Take(kernels::top_k_bytes(), &buffers->top_k);
  carver.Take(sizes.attend_bytes, &buffers->attend);
  carver.Take(sizes.ffn_bytes, &buffers->ffn);
  if (sizes.product.has_value()) {
    carver.Take(DeviceProduct::WorkspaceBytes(*sizes.product), &buffers->product);
  }
  return carver.n_bytes();
}

int64_t DeviceLayers::WorkspaceBytes(const ModelConfig& config, const ShardSpec& spec,
                                     const Options& options, const Predictor* predictor) {
  Buffers unused;
  const DeviceFfn::Sizes ffn = DeviceFfn::SizesOf(config, spec, predictor, options.max_tokens);
  return Place(config, SizesOf(config, spec, options, ffn), options, nullptr, &unused);
}

DeviceLayers::Buffers DeviceLayers::PlaceInWorkspace() const {
  Buffers buffers;
  const int64_t n_bytes = Place(config_, sizes_, options_, shard_->workspace(), &buffers);
  THERMOCLINE_CHECK(n_bytes <= shard_->workspace_bytes());
  return buffers;
}

int64_t DeviceLayers::PlaceStaged(const ModelConfig& config, const Options& options,
                                  const DeviceFfn::Sizes& ffn, uint8_t* base, Staged* staged) {
  Carver carver(base);
  const int64_t n = options.max_tokens;
  carver.Take(n * config.d_model, &staged->x);
  carver.Take(n, &staged->tokens);
  carver.Take(n * config.n_rot / 2, &staged->cos);
  carver.Take(n * config.n_rot / 2, &staged->sin);
  carver.Take(DeviceFfn::HostBytes(ffn), &staged->ffn);
  return carver.n_bytes();
}

DeviceLayers::Staged DeviceLayers::PlaceOnHost(uint8_t* host) const {
  Staged staged;
  PlaceStaged(config_, options_, ffn_sizes_, host, &staged);
  return staged;
}

absl::StatusOr<std::unique_ptr<DeviceLayers>> DeviceLayers::Create(const DeviceShard* shard,
                                                                   Device* device,
                                                                   const Options& options) {
  Staged unused;
  const DeviceFfn::Sizes ffn = DeviceFfn::SizesOf(*shard, options.max_tokens);
  ASSIGN_OR_RETURN(uint8_t * host, device->AllocateHost(PlaceStaged(shard->config(), options, ffn,
                                                                    nullptr, &unused)));
  ASSIGN_OR_RETURN(std::unique_ptr<DeviceTrace> trace,
                   DeviceTrace::Create(device, shard->config().n_layers, options.trace));
  return std::unique_ptr<DeviceLayers>(
      new DeviceLayers(shard, device, options, host, std::move(trace)));
}

DeviceLayers::DeviceLayers(const DeviceShard* shard, Device* device, const Options& options,
                           uint8_t* host, std::unique_ptr<DeviceTrace> trace)
    : shard_(shard),
      device_(device),
      ops_(device->ops()),
      options_(options),
      config_(shard->config()),
      ffn_sizes_(DeviceFfn::SizesOf(*shard, options.max_tokens)),
      sizes_(SizesOf(shard->config(), shard->spec(), options, ffn_sizes_)),
      buffers_(PlaceInWorkspace()),
      staged_(PlaceOnHost(host)),
      product_(sizes_.product.has_value()
                   ? std::make_unique<DeviceProduct>(device, *sizes_.product, buffers_.product)
                   : nullptr),
      trace_(std::move(trace)),
      ffn_(shard, device, product_.get(), trace_.get(), ffn_sizes_, buffers_.ffn, staged_.ffn),
      frequencies_(RopeFrequencies(shard->config(), shard->rope_factors())) {}

absl::Status DeviceLayers::Stage(const Step& step) {
  tokens_.assign(step.tokens.begin(), step.tokens.end());
  RETURN_IF_ERROR(
      CheckStep(step, tokens_,
                {options_.max_tokens, options_.max_logit_rows, options_.n_slots, options_.n_ctx}));
  n_tokens_ = step.n_tokens();
  max_position_ = 0;
  const int64_t n_pairs = config_.n_rot / 2;
  for (int64_t t = 0; t < n_tokens_; ++t) {
    staged_.tokens[t] = {tokens_[t].slot, tokens_[t].position};
    max_position_ = std::max<int64_t>(max_position_, tokens_[t].position);
    RopeAngles(frequencies_, tokens_[t].position, staged_.cos + t * n_pairs,
               staged_.sin + t * n_pairs);
  }
  max_position_ = std::min(max_position_, options_.device_ctx() - 1);
  std::memcpy(staged_.x, step.x, n_tokens_ * config_.d_model * sizeof(float));
  ffn_.Stage(tokens_);
  return absl::OkStatus();
}

absl::Status DeviceLayers::Upload() {
  const auto upload = [this](void* to, const auto* from, int64_t n) {
    return device_->Upload(to, from, n * static_cast<int64_t>(sizeof(*from)));
  };
  const int64_t n_pairs = config_.n_rot / 2;
  RETURN_IF_ERROR(trace_->Reset());
  trace_->StartPart(0);
  RETURN_IF_ERROR(ffn_.BeginStep());
  RETURN_IF_ERROR(upload(buffers_.tokens, staged_.tokens, n_tokens_));
  RETURN_IF_ERROR(upload(buffers_.cos, staged_.cos, n_tokens_ * n_pairs));
  RETURN_IF_ERROR(upload(buffers_.sin, staged_.sin, n_tokens_ * n_pairs));
  RETURN_IF_ERROR(upload(buffers_.h, staged_.x, n_tokens_ * config_.d_model));
  return trace_->Mark(TraceOp::kUpload);
}

absl::Status DeviceLayers::Norm(const float* x, int64_t n_tokens, const float* weight, int64_t to) {
  const int64_t d_model = config_.d_model;
  kernels::DeviceRows quantized = buffers_.input;
  quantized.stride = d_model;
  quantized.q += to * d_model;
  quantized.scale += to * d_model / 32;
  quantized.sum += to * d_model / 32;
  return device_->Check(ops_.rms_norm(device_->stream(), x, weight, n_tokens, d_model,
                                      config_.norm_eps, buffers_.normed + to * d_model, quantized),
                        "rms_norm");
}

// x [n_tokens, width] in f32, and quantized in buffers_.input.
absl::Status DeviceLayers::Product(const kernels::DeviceMatrix& weights, const float* x,
                                   int64_t width, int64_t n_tokens, float* out,
                                   int64_t out_stride) {
  kernels::DeviceRows rows = buffers_.input;
  rows.stride = width;
  return device_->Check(
      ops_.matmul(device_->stream(), weights, {}, rows, x, width, n_tokens, out, out_stride),
      "matmul");
}

absl::Status DeviceLayers::Products(std::initializer_list<Rows> all, const float* x,
                                    int64_t width) {
  const bool is_prompt = product_ != nullptr && n_tokens_ >= kGemmTokens;
  if (is_prompt) RETURN_IF_ERROR(product_->SetInput(x, width, width, n_tokens_));
  const kernels::BesideEachOther beside(device_->stream());
  for (const auto& [weights, out] : all) {
    RETURN_IF_ERROR(is_prompt ? product_->Multiply(weights, out, weights.n_rows)
                              : Product(weights, x, width, n_tokens_, out, weights.n_rows));
  }
  return absl::OkStatus();
}

absl::Status DeviceLayers::Attention(int64_t index, int64_t max_position,
                                     const std::function<absl::Status()>& meet) {
  const DeviceLayer& layer = shard_->layers()[index];
  const bool attends = has_attention(index);
  if (attends) RETURN_IF_ERROR(Project(layer));
  if (meet != nullptr) {
    if (attends) RETURN_IF_ERROR(LeaveForTail(index));
    RETURN_IF_ERROR(meet());
    RETURN_IF_ERROR(trace_->Mark(TraceOp::kMeet));
  }
  if (attends) RETURN_IF_ERROR(Attend(layer, max_position));
  if (meet != nullptr) {
    RETURN_IF_ERROR(meet());
    if (attends) RETURN_IF_ERROR(MergeTail(index));
  }
  if (attends) RETURN_IF_ERROR(AttentionOutput(layer));
  return ffn_.decides(index) ? Decide(index) : absl::OkStatus();
}

absl::Status DeviceLayers::Project(const DeviceLayer& layer) {
  RETURN_IF_ERROR(Norm(buffers_.h, n_tokens_, layer.attention_norm));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kNorm));
  RETURN_IF_ERROR(Products({{layer.q, buffers_.q}, {layer.k, buffers_.k}, {layer.v, buffers_.v}},
                           buffers_.normed, config_.d_model));
  return trace_->Mark(TraceOp::kQkv);
}

absl::Status DeviceLayers::LeaveForTail(int64_t index) {
  const int64_t n_kv_heads = shard_->layers()[index].n_kv_heads;
  const int64_t first_kv_head = shard_->spec().layers[index].kv_heads.begin;
  // A head of k or v is as wide as one of q; of q there are `group` for each.
  const auto leave = [&](const float* from, int64_t group, float* to) {
    const int64_t width = config_.d_head * group;
    return device_->Check(
        ops_.copy(device_->stream(), from, n_kv_heads * width, n_tokens_, n_kv_heads * width,
                  to + first_kv_head * width, config_.n_kv_heads * width),
        "copy");
  };
  RETURN_IF_ERROR(leave(buffers_.q, config_.group_size(), tail_.q));
  RETURN_IF_ERROR(leave(buffers_.k, 1, tail_.k));
  return leave(buffers_.v, 1, tail_.v);
}

absl::Status DeviceLayers::Attend(const DeviceLayer& layer, int64_t max_position) {
  kernels::DeviceStream* stream = device_->stream();
  RETURN_IF_ERROR(device_->Check(
      ops_.rope_store(stream, buffers_.q, buffers_.k, buffers_.v, buffers_.cos, buffers_.sin,
                      config_.n_rot, buffers_.tokens, n_tokens_, n_heads(layer), layer.kv),
      "rope_store"));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kRope));
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.d_head));
  RETURN_IF_ERROR(device_->Check(
      ops_.attend(stream, buffers_.q, buffers_.tokens, n_tokens_, n_heads(layer), layer.kv, scale,
                  /*window=*/0, max_position, buffers_.attention, buffers_.attention_state,
                  buffers_.attend),
      "attend"));
  return trace_->Mark(TraceOp::kAttend);
}

absl::Status DeviceLayers::MergeTail(int64_t index) {
  const int64_t first_head = shard_->spec().layers[index].kv_heads.begin * config_.group_size();
  const int64_t of_head = 2 + config_.d_head;
  RETURN_IF_ERROR(
      device_->Check(ops_.merge_tail(device_->stream(), buffers_.attention_state,
                                     tail_.state + first_head * of_head, config_.n_heads * of_head,
                                     n_tokens_, n_heads(shard_->layers()[index]),
                                     static_cast<int32_t>(config_.d_head), buffers_.attention),
                     "merge_tail"));
  return trace_->Mark(TraceOp::kTail);
}

absl::Status DeviceLayers::AttentionOutput(const DeviceLayer& layer) {
  const int64_t q_width = n_heads(layer) * config_.d_head;
  kernels::DeviceRows quantized = buffers_.input;
  quantized.stride = q_width;
  RETURN_IF_ERROR(device_->Check(
      ops_.quantize(device_->stream(), buffers_.attention, q_width, n_tokens_, q_width, quantized),
      "quantize"));
  RETURN_IF_ERROR(Products({{layer.o, buffers_.partial}}, buffers_.attention, q_width));
  return trace_->Mark(TraceOp::kAttentionOutput);
}

// All of the attention is this rank's, so that it knows h before the others.
absl::Status DeviceLayers::Decide(int64_t index) {
  RETURN_IF_ERROR(device_->Check(ops_.add(device_->stream(), buffers_.h, buffers_.partial,
                                          n_tokens_ * config_.d_model, buffers_.next_h),
                                 "add"));
  RETURN_IF_ERROR(Norm(buffers_.next_h, n_tokens_, shard_->layers()[index].ffn_norm));
  kernels::DeviceRows input = buffers_.input;
  input.stride = config_.d_model;
  return ffn_.Decide(index, {buffers_.next_h, buffers_.normed, input});
}

absl::Status DeviceLayers::Ffn(int64_t index, const StreamHost& host) {
  RETURN_IF_ERROR(Norm(buffers_.h, n_tokens_, shard_->layers()[index].ffn_norm));
  RETURN_IF_ERROR(trace_->Mark(TraceOp::kNorm));
  kernels::DeviceRows input = buffers_.input;
  input.stride = config_.d_model;
  return ffn_.Run(index, {buffers_.h, buffers_.normed, input}, buffers_.partial, host);
}

absl::Status DeviceLayers::Logits(int64_t n_rows) {
  const int64_t d_model = config_.d_model, vocab = sizes_.vocab;
  if (n_rows == 0 || vocab == 0) return absl::OkStatus();
  // Tokens side by side whose rows are, too, are normed at once: all, or the last one, as a rule.
  for (int64_t begin = 0, end; begin < n_tokens_; begin = end) {
    const int32_t row = tokens_[begin].logit_row;
    end = begin + 1;
    if (row < 0) continue;
    while (end < n_tokens_ && tokens_[end].logit_row == row + end - begin) ++end;
    RETURN_IF_ERROR(Norm(buffers_.h + begin * d_model, end - begin, shard_->output_norm(), row));
  }
  return Product(shard_->output(), buffers_.normed, d_model, n_rows, buffers_.logits, vocab);
}

absl::Status DeviceLayers::LeaveLogits(const Step& step, Exchange* exchange) {
  const int64_t vocab = sizes_.vocab;
  if (step.n_logit_rows == 0 || vocab == 0) return absl::OkStatus();
  if (step.wants_best_only) {
    RETURN_IF_ERROR(LeaveCandidates(step.n_logit_rows, exchange->Candidates()));
  }
  for (int32_t row = 0; !step.wants_best_only && row < step.n_logit_rows; ++row) {
    RETURN_IF_ERROR(device_->Download(exchange->Logits(row), buffers_.logits + row * vocab,
                                      vocab * static_cast<int64_t>(sizeof(float))));
  }
  return trace_->Mark(TraceOp::kOutput);
}

absl::Status DeviceLayers::LeaveCandidates(int64_t n_rows, LogitCandidate* to) {
  const auto first = static_cast<int32_t>(shard_->spec().vocab.begin);
  for (int64_t row = 0; row < n_rows; ++row) {
    LogitCandidate* best = buffers_.candidates + row;
    RETURN_IF_ERROR(device_->Check(
        ops_.top_k(device_->stream(), buffers_.logits + row * sizes_.vocab, sizes_.vocab, /*k=*/1,
                   first, &best->logit, &best->token, buffers_.log_sum, buffers_.top_k),
        "top_k"));
  }
  return device_->Download(to, buffers_.candidates,
                           n_rows * static_cast<int64_t>(sizeof(LogitCandidate)));
}

absl::Status DeviceLayers::EndStep() {
  RETURN_IF_ERROR(ffn_.EndStep());
  return trace_->Collect();
}

}  // namespace thermocline
