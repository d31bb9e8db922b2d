// Addresses into one arena; pages appear as positions are first used.
#include "cpu_worker/kv_cache.h"

#include <cstring>
#include <string>
#include <utility>

#include "common/util/status_macros.h"

namespace thermocline {

std::vector<KvCache::LayerSize> KvCache::SizesOf(const ShardSpec& spec, int64_t n_ctx,
                                                 int64_t tail_begin) {
  std::vector<LayerSize> sizes;
  for (const ShardSpec::Layer& layer : spec.layers) {
    sizes.push_back(layer.tail_heads.size() > 0
                        ? LayerSize{layer.tail_heads.size(), n_ctx - tail_begin}
                        : LayerSize{layer.kv_heads.size(), n_ctx});
  }
  return sizes;
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(std::vector<LayerSize> layers,
                                                         int64_t n_slots, int64_t d_head,
                                                         kernels::KvType type) {
  std::unique_ptr<KvCache> cache(new KvCache());
  cache->sizes_ = std::move(layers);
  cache->n_slots_ = n_slots;
  cache->d_head_ = d_head;
  cache->type_ = type;
  constexpr char kWhat[] = "the KV cache (a smaller --ctx-size needs less)";
  int64_t total = 0;
  for (const LayerSize& size : cache->sizes_) {
    int64_t layer_bytes;
    if (__builtin_mul_overflow(cache->HeadBytes(size), n_slots * size.n_kv_heads, &layer_bytes) ||
        __builtin_add_overflow(total, Arena::Aligned(layer_bytes), &total)) {
      return absl::ResourceExhaustedError(std::string("no memory for ") + kWhat);
    }
  }
  ASSIGN_OR_RETURN(cache->arena_, Arena::Create(total, kWhat));
  for (const LayerSize& size : cache->sizes_) {
    cache->layers_.push_back(
        cache->arena_->Take(n_slots * size.n_kv_heads * cache->HeadBytes(size)));
  }
  return cache;
}

uint8_t* KvCache::HeadData(int64_t layer, int64_t slot, int64_t head) const {
  const LayerSize& size = sizes_[layer];
  return layers_[layer] + (slot * size.n_kv_heads + head) * HeadBytes(size);
}

kernels::KvHead KvCache::Head(int64_t layer, int64_t slot, int64_t head) const {
  const uint8_t* k = HeadData(layer, slot, head);
  return {k, k + HeadBytes(sizes_[layer]) / 2, type_, d_head_};
}

void KvCache::Store(const kernels::Ops& ops, int64_t layer, int64_t slot, int64_t head,
                    int64_t position, const float* k, const float* v) {
  uint8_t* k_row = HeadData(layer, slot, head) + position * d_head_ * ElementBytes();
  uint8_t* v_row = k_row + HeadBytes(sizes_[layer]) / 2;
  if (type_ == kernels::KvType::kF16) {
    ops.f32_to_f16(k, d_head_, reinterpret_cast<uint16_t*>(k_row));
    ops.f32_to_f16(v, d_head_, reinterpret_cast<uint16_t*>(v_row));
  } else {
    std::memcpy(k_row, k, d_head_ * sizeof(float));
    std::memcpy(v_row, v, d_head_ * sizeof(float));
  }
}

}  // namespace thermocline
