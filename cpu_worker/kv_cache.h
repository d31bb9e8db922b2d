// Keys and values of this rank's KV heads, for all session slots, layer by layer. Of a layer whose
// heads another rank holds it may have the tail of the context (plan.h): the first of its positions
// here is the first of the tail.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/worker/shard_spec.h"
#include "cpu_worker/arena.h"
#include "kernels/ops.h"

namespace thermocline {

class KvCache {
 public:
  struct LayerSize {
    int64_t n_kv_heads = 0;
    int64_t n_positions = 0;  // of each slot
  };
  // tail_begin: the first position of tail_heads; 0: there are none.
  static std::vector<LayerSize> SizesOf(const ShardSpec& spec, int64_t n_ctx, int64_t tail_begin);
  // ResourceExhausted names the bytes; the remedy is a smaller context.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(std::vector<LayerSize> layers,
                                                         int64_t n_slots, int64_t d_head,
                                                         kernels::KvType type);

  // Head `head` (local number) of a slot: positions are d_head elements apart.
  kernels::KvHead Head(int64_t layer, int64_t slot, int64_t head) const;
  // Stores one position, rounding to the cache's type. k and v are [d_head].
  void Store(const kernels::Ops& ops, int64_t layer, int64_t slot, int64_t head, int64_t position,
             const float* k, const float* v);

  int64_t n_bytes() const { return arena_->size(); }
  int64_t n_slots() const { return n_slots_; }

 private:
  KvCache() = default;
  int64_t ElementBytes() const { return type_ == kernels::KvType::kF16 ? 2 : 4; }
  // Of a slot's head: all of k, then all of v.
  uint8_t* HeadData(int64_t layer, int64_t slot, int64_t head) const;

  std::unique_ptr<Arena> arena_;
  int64_t HeadBytes(const LayerSize& size) const {
    return 2 * size.n_positions * d_head_ * ElementBytes();
  }

  std::vector<uint8_t*> layers_;  // [n_layers] -> [n_slots, n_kv_heads, 2, n_positions, d_head]
  std::vector<LayerSize> sizes_;  // [n_layers]
  int64_t n_slots_ = 0, d_head_ = 0;
  kernels::KvType type_ = kernels::KvType::kF16;
};

}  // namespace thermocline
