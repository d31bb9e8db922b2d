// The attention half of a layer: projections, RoPE, KV cache, softmax over the context.
#include <algorithm>
#include <cmath>

#include "cpu_worker/forward.h"

namespace thermocline {

void Forward::AttentionLayer(int32_t thread, int64_t layer) {
  const LayerWeights& weights = shard_->layers()[layer];
  const bool has_partial = weights.kv_heads.size() > 0;
  clock_.StartLayer(thread, layer);
  if (step_.has_tail) TailLayer(thread, layer);
  if (failed_) return;
  if (has_partial) {
    const Heads heads = {layer, weights.kv_heads.size()};
    const Activations& input = PrepareInput(thread, weights.attention_norm);
    Product(thread, weights.q, input, 0, n_tokens_, q_.data(), q_stride_);
    Product(thread, weights.k, input, 0, n_tokens_, k_.data(), kv_stride_);
    Product(thread, weights.v, input, 0, n_tokens_, v_.data(), kv_stride_);
    team_->Sync(thread);
    RotateAndStore(thread, heads);
    team_->Sync(thread);
    Attend(thread, heads);
    team_->Sync(thread);
    const Activations& attention = QuantizeShared(thread, attention_);
    Product(thread, weights.o, attention, 0, n_tokens_, exchange_->Partial(), config_.d_model);
    clock_.Mark(thread, TraceOp::kAttention);
  }
  Combine(thread, has_partial);
}

// Other ranks' heads, over the tail of the context that is in this rank's KV cache.
void Forward::TailLayer(int32_t thread, int64_t layer) {
  Meet(thread);
  if (failed_) return;
  const Range& kv_heads = shard_->layers()[layer].tail_heads;
  if (kv_heads.size() > 0) {
    const Heads heads = {layer, kv_heads.size(), options_.tail_begin,
                         kv_heads.begin * config_.group_size(), exchange_->tail().state};
    TakeTailInputs(thread, kv_heads);
    RotateAndStore(thread, heads);
    team_->Sync(thread);
    Attend(thread, heads);
    clock_.Mark(thread, TraceOp::kAttention);
  }
  Meet(thread);
}

// As RotateAndStore shares them out among the threads.
void Forward::TakeTailInputs(int32_t thread, const Range& kv_heads) {
  const TailMemory from = exchange_->tail();
  const int64_t d_head = config_.d_head, q_width = config_.group_size() * d_head;
  const Team::Part items = team_->PartOf(n_tokens_ * kv_heads.size(), thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t token = item / kv_heads.size(), head = item % kv_heads.size();
    const int64_t row = token * config_.n_kv_heads + kv_heads.begin + head;
    std::copy_n(from.q + row * q_width, q_width, q_.data() + token * q_stride_ + head * q_width);
    std::copy_n(from.k + row * d_head, d_head, k_.data() + token * kv_stride_ + head * d_head);
    std::copy_n(from.v + row * d_head, d_head, v_.data() + token * kv_stride_ + head * d_head);
  }
}

void Forward::RotateAndStore(int32_t thread, const Heads& heads) {
  const int64_t d_head = config_.d_head;
  const int64_t n_pairs = config_.n_rot / 2;
  const Team::Part items = team_->PartOf(n_tokens_ * heads.n_kv_heads, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t token = item / heads.n_kv_heads;
    const int64_t head = item % heads.n_kv_heads;
    const int64_t position = tokens_[token].position - heads.begin;
    if (position < 0) continue;
    const float* cos = cos_.data() + token * n_pairs;
    const float* sin = sin_.data() + token * n_pairs;
    float* k = k_.data() + token * kv_stride_ + head * d_head;
    const float* v = v_.data() + token * kv_stride_ + head * d_head;
    ops_->rope_interleaved(k, config_.n_rot, cos, sin);
    cache_->Store(*ops_, heads.layer, tokens_[token].slot, head, position, k, v);
    float* q = q_.data() + token * q_stride_ + head * config_.group_size() * d_head;
    for (int64_t i = 0; i < config_.group_size(); ++i) {
      ops_->rope_interleaved(q + i * d_head, config_.n_rot, cos, sin);
    }
  }
}

void Forward::Attend(int32_t thread, const Heads& heads) {
  if (one_token() && SharesContext(heads.n_kv_heads)) {
    AttendSharedContext(thread, heads);
  } else {
    AttendWholeHeads(thread, heads);
  }
}

void Forward::FinishHead(const Heads& heads, int64_t token, int64_t head,
                         const std::vector<float>& state) {
  const int64_t d_head = config_.d_head;
  if (heads.states == nullptr) {
    ops_->attend_finish(state.data(), d_head, attention_.row(token) + head * d_head);
    return;
  }
  const int64_t row = token * config_.n_heads + heads.first_head + head;
  std::copy(state.begin(), state.end(), heads.states + row * (2 + d_head));
}

// A thread takes whole heads of tokens.
void Forward::AttendWholeHeads(int32_t thread, const Heads& heads) {
  const int64_t n_heads = heads.n_kv_heads * config_.group_size();
  const int64_t d_head = config_.d_head;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
  Private& own = private_[thread];
  const Team::Part items = team_->PartOf(n_tokens_ * n_heads, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t token = item / n_heads;
    const int64_t head = item % n_heads;
    const kernels::KvHead kv =
        cache_->Head(heads.layer, tokens_[token].slot, head / config_.group_size());
    const int64_t n_positions = std::max<int64_t>(tokens_[token].position + 1 - heads.begin, 0);
    const int64_t n_tiles = (n_positions + kernels::kAttentionTile - 1) / kernels::kAttentionTile;
    const float* q = q_.data() + token * q_stride_ + head * d_head;
    std::fill(own.state.begin(), own.state.end(), 0.0f);
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
      ops_->attend_tiles(q, kv, n_positions, d_head, scale, tile, tile + 1, own.partials.data());
      ops_->attend_merge(own.partials.data(), 1, d_head, own.state.data());
    }
    FinishHead(heads, token, head, own.state);
    if (thread == 0 && !one_token()) exchange_->Working();
  }
}

// Few heads for many threads: a thread takes tiles of heads, and the tiles are merged after that,
// in the same order as above.
void Forward::AttendSharedContext(int32_t thread, const Heads& heads) {
  const int64_t n_heads = heads.n_kv_heads * config_.group_size();
  const int64_t d_head = config_.d_head;
  const int64_t state_size = 2 + d_head;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
  const int64_t n_positions = tokens_[0].position + 1 - heads.begin;
  const int64_t n_tiles = (n_positions + kernels::kAttentionTile - 1) / kernels::kAttentionTile;
  const Team::Part items = team_->PartOf(n_heads * n_tiles, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t head = item / n_tiles;
    const int64_t tile = item % n_tiles;
    const kernels::KvHead kv =
        cache_->Head(heads.layer, tokens_[0].slot, head / config_.group_size());
    ops_->attend_tiles(q_.data() + head * d_head, kv, n_positions, d_head, scale, tile, tile + 1,
                       tile_partials_.data() + item * state_size);
  }
  team_->Sync(thread);
  std::vector<float>& state = private_[thread].state;
  const Team::Part own_heads = team_->PartOf(n_heads, thread);
  for (int64_t head = own_heads.begin; head < own_heads.end; ++head) {
    std::fill(state.begin(), state.end(), 0.0f);
    ops_->attend_merge(tile_partials_.data() + head * n_tiles * state_size, n_tiles, d_head,
                       state.data());
    FinishHead(heads, 0, head, state);
  }
}

}  // namespace thermocline
