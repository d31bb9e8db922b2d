// Addresses into one arena; pages appear as positions are first used.
#include "cpu_worker/kv_cache.h"

#include <cstring>
#include <string>

#include "common/util/status_macros.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(
    const std::vector<int64_t>& heads_per_layer, int64_t n_slots, int64_t n_ctx, int64_t d_head,
    kernels::KvType type) {
  std::unique_ptr<KvCache> cache(new KvCache());
  cache->n_heads_ = heads_per_layer;
  cache->n_slots_ = n_slots;
  cache->n_ctx_ = n_ctx;
  cache->d_head_ = d_head;
  cache->type_ = type;
  constexpr char kWhat[] = "the KV cache (a smaller --ctx-size needs less)";
  const int64_t head_bytes = 2 * n_ctx * d_head * cache->ElementBytes();
  int64_t total = 0;
  for (const int64_t heads : heads_per_layer) {
    int64_t layer_bytes;
    if (__builtin_mul_overflow(head_bytes, n_slots * heads, &layer_bytes) ||
        __builtin_add_overflow(total, Arena::Aligned(layer_bytes), &total)) {
      return absl::ResourceExhaustedError(std::string("no memory for ") + kWhat);
    }
  }
  ASSIGN_OR_RETURN(cache->arena_, Arena::Create(total, kWhat));
  for (const int64_t heads : heads_per_layer) {
    cache->layers_.push_back(cache->arena_->Take(n_slots * heads * head_bytes));
  }
  return cache;
}

uint8_t* KvCache::HeadData(int64_t layer, int64_t slot, int64_t head) const {
  const int64_t head_bytes = 2 * n_ctx_ * d_head_ * ElementBytes();
  return layers_[layer] + (slot * n_heads_[layer] + head) * head_bytes;
}

kernels::KvHead KvCache::Head(int64_t layer, int64_t slot, int64_t head) const {
  const uint8_t* k = HeadData(layer, slot, head);
  return {k, k + n_ctx_ * d_head_ * ElementBytes(), type_, d_head_};
}

void KvCache::Store(const kernels::Ops& ops, int64_t layer, int64_t slot, int64_t head,
                    int64_t position, const float* k, const float* v) {
  uint8_t* k_row = HeadData(layer, slot, head) + position * d_head_ * ElementBytes();
  uint8_t* v_row = k_row + n_ctx_ * d_head_ * ElementBytes();
  if (type_ == kernels::KvType::kF16) {
    ops.f32_to_f16(k, d_head_, reinterpret_cast<uint16_t*>(k_row));
    ops.f32_to_f16(v, d_head_, reinterpret_cast<uint16_t*>(v_row));
  } else {
    std::memcpy(k_row, k, d_head_ * sizeof(float));
    std::memcpy(v_row, v, d_head_ * sizeof(float));
  }
}

}  // namespace thermocline
