// Keys and values of this rank's KV heads, for all session slots, layer by layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "cpu_worker/arena.h"
#include "kernels/ops.h"

namespace thermocline {

class KvCache {
 public:
  // heads_per_layer: how many KV heads this rank holds in each layer. ResourceExhausted names the
  // bytes; the remedy is a smaller context.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(
      const std::vector<int64_t>& heads_per_layer, int64_t n_slots, int64_t n_ctx, int64_t d_head,
      kernels::KvType type);

  // Head `head` (local number) of a slot: positions are d_head elements apart.
  kernels::KvHead Head(int64_t layer, int64_t slot, int64_t head) const;
  // Stores one position, rounding to the cache's type. k and v are [d_head].
  void Store(const kernels::Ops& ops, int64_t layer, int64_t slot, int64_t head, int64_t position,
             const float* k, const float* v);

  int64_t n_bytes() const { return arena_->size(); }
  int64_t n_slots() const { return n_slots_; }
  int64_t n_ctx() const { return n_ctx_; }

 private:
  KvCache() = default;
  int64_t ElementBytes() const { return type_ == kernels::KvType::kF16 ? 2 : 4; }
  // Of a slot's head: all of k, then all of v.
  uint8_t* HeadData(int64_t layer, int64_t slot, int64_t head) const;

  std::unique_ptr<Arena> arena_;
  std::vector<uint8_t*> layers_;  // [n_layers] -> [n_slots, heads, 2, n_ctx, d_head]
  std::vector<int64_t> n_heads_;  // [n_layers]
  int64_t n_slots_ = 0, n_ctx_ = 0, d_head_ = 0;
  kernels::KvType type_ = kernels::KvType::kF16;
};

}  // namespace thermocline
