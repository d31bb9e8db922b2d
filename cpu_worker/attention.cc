// The attention half of a layer: projections, RoPE, KV cache, softmax over the context.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu_worker/forward.h"

namespace thermocline {

void Forward::AttentionLayer(int32_t thread, int64_t layer) {
  const LayerWeights& weights = shard_->layers()[layer];
  const bool has_partial = weights.kv_heads.size() > 0;
  clock_.StartLayer(thread, layer);
  if (has_partial) {
    const Activations& input = PrepareInput(thread, weights.attention_norm);
    Product(thread, weights.q, input, 0, n_tokens_, q_.data(), q_stride_);
    Product(thread, weights.k, input, 0, n_tokens_, k_.data(), kv_stride_);
    Product(thread, weights.v, input, 0, n_tokens_, v_.data(), kv_stride_);
    team_->Sync(thread);
    RotateAndStore(thread, layer);
    team_->Sync(thread);
    const int64_t n_heads = weights.kv_heads.size() * config_.group_size();
    if (one_token() && n_heads < 2 * team_->size()) {
      AttendSharedContext(thread, layer);
    } else {
      Attend(thread, layer);
    }
    team_->Sync(thread);
    const Activations& attention = QuantizeShared(thread, attention_);
    Product(thread, weights.o, attention, 0, n_tokens_, exchange_->Partial(), config_.d_model);
    clock_.Mark(thread, TraceOp::kAttention);
  }
  Combine(thread, has_partial);
}

void Forward::RotateAndStore(int32_t thread, int64_t layer) {
  const int64_t n_kv_heads = shard_->layers()[layer].kv_heads.size();
  const int64_t d_head = config_.d_head;
  const int64_t n_pairs = config_.n_rot / 2;
  const Team::Part items = team_->PartOf(n_tokens_ * n_kv_heads, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t token = item / n_kv_heads;
    const int64_t head = item % n_kv_heads;
    const float* cos = cos_.data() + token * n_pairs;
    const float* sin = sin_.data() + token * n_pairs;
    float* k = k_.data() + token * kv_stride_ + head * d_head;
    const float* v = v_.data() + token * kv_stride_ + head * d_head;
    ops_->rope_interleaved(k, config_.n_rot, cos, sin);
    cache_->Store(*ops_, layer, tokens_[token].slot, head, tokens_[token].position, k, v);
    float* q = q_.data() + token * q_stride_ + head * config_.group_size() * d_head;
    for (int64_t i = 0; i < config_.group_size(); ++i) {
      ops_->rope_interleaved(q + i * d_head, config_.n_rot, cos, sin);
    }
  }
}

// A thread takes whole heads of tokens.
void Forward::Attend(int32_t thread, int64_t layer) {
  const int64_t n_heads = shard_->layers()[layer].kv_heads.size() * config_.group_size();
  const int64_t d_head = config_.d_head;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
  Private& own = private_[thread];
  const Team::Part items = team_->PartOf(n_tokens_ * n_heads, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t token = item / n_heads;
    const int64_t head = item % n_heads;
    const kernels::KvHead kv =
        cache_->Head(layer, tokens_[token].slot, head / config_.group_size());
    const int64_t n_positions = tokens_[token].position + 1;
    const int64_t n_tiles = (n_positions + kernels::kAttentionTile - 1) / kernels::kAttentionTile;
    const float* q = q_.data() + token * q_stride_ + head * d_head;
    std::fill(own.state.begin(), own.state.end(), 0.0f);
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
      ops_->attend_tiles(q, kv, n_positions, d_head, scale, tile, tile + 1, own.partials.data());
      ops_->attend_merge(own.partials.data(), 1, d_head, own.state.data());
    }
    ops_->attend_finish(own.state.data(), d_head, attention_.row(token) + head * d_head);
    if (thread == 0 && !one_token()) exchange_->Working();
  }
}

// Few heads for many threads: a thread takes tiles of heads, and the tiles are merged after that,
// in the same order as above.
void Forward::AttendSharedContext(int32_t thread, int64_t layer) {
  const int64_t n_heads = shard_->layers()[layer].kv_heads.size() * config_.group_size();
  const int64_t d_head = config_.d_head;
  const int64_t state_size = 2 + d_head;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d_head));
  const int64_t n_positions = tokens_[0].position + 1;
  const int64_t n_tiles = (n_positions + kernels::kAttentionTile - 1) / kernels::kAttentionTile;
  const Team::Part items = team_->PartOf(n_heads * n_tiles, thread);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const int64_t head = item / n_tiles;
    const int64_t tile = item % n_tiles;
    const kernels::KvHead kv = cache_->Head(layer, tokens_[0].slot, head / config_.group_size());
    ops_->attend_tiles(q_.data() + head * d_head, kv, n_positions, d_head, scale, tile, tile + 1,
                       tile_partials_.data() + item * state_size);
  }
  team_->Sync(thread);
  std::vector<float>& state = private_[thread].state;
  const Team::Part heads = team_->PartOf(n_heads, thread);
  for (int64_t head = heads.begin; head < heads.end; ++head) {
    std::fill(state.begin(), state.end(), 0.0f);
    ops_->attend_merge(tile_partials_.data() + head * n_tiles * state_size, n_tiles, d_head,
                       state.data());
    ops_->attend_finish(state.data(), d_head, attention_.row(0) + head * d_head);
  }
}

}  // namespace thermocline
