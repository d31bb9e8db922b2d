// Attention of one query head, scalar: partial results of tiles, their merge, the final division.
// The online softmax of FlashAttention (arXiv 2205.14135), except that tiles are merged in a fixed
// order at fixed positions, so that a result does not depend on who computed which tiles.
#include <algorithm>
#include <cmath>

#include "common/gguf/half.h"
#include "kernels/levels.h"
#include "kernels/reference/exp.h"
#include "kernels/reference/lanes16.h"

namespace thermocline::kernels::reference {
namespace {

// One row of the cache, [d_head], as f32.
void read_row(const KvHead& kv, const void* data, int64_t position, int64_t d_head, float* row) {
  for (int64_t d = 0; d < d_head; ++d) {
    const int64_t i = position * kv.stride + d;
    row[d] = kv.type == KvType::kF32 ? static_cast<const float*>(data)[i]
                                     : f16_to_f32(static_cast<const uint16_t*>(data)[i]);
  }
}

// Positions [begin, end) of one tile -> partial {max, sum, o[d_head]}.
void attend_tile(const float* q, const KvHead& kv, int64_t begin, int64_t end, int64_t d_head,
                 float scale, float* partial) {
  float row[kMaxHeadDim];
  float score[kAttentionTile];
  for (int64_t i = begin; i < end; ++i) {
    read_row(kv, kv.k, i, d_head, row);
    score[i - begin] = dot(q, row, d_head) * scale;
  }
  const float max = maximum(score, end - begin);
  Lanes16 sum = Lanes16::filled(0.0f);
  float* o = partial + 2;
  std::fill_n(o, d_head, 0.0f);
  for (int64_t i = begin; i < end; ++i) {
    const float p = exp(score[i - begin] - max);
    sum.lane[(i - begin) % 16] += p;
    read_row(kv, kv.v, i, d_head, row);
    for (int64_t d = 0; d < d_head; ++d) o[d] = std::fma(p, row[d], o[d]);
  }
  partial[0] = max;
  partial[1] = sum.sum();
}

}  // namespace

void attend_tiles(const float* q, const KvHead& kv, int64_t n_positions, int64_t d_head,
                  float scale, int64_t tile_begin, int64_t tile_end, float* partial) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const int64_t begin = tile * kAttentionTile;
    const int64_t end = std::min(begin + kAttentionTile, n_positions);
    attend_tile(q, kv, begin, end, d_head, scale, partial);
    partial += 2 + d_head;
  }
}

void attend_merge(const float* partial, int64_t n_tiles, int64_t d_head, float* state) {
  for (; n_tiles > 0; --n_tiles, partial += 2 + d_head) {
    if (state[1] == 0.0f) {  // empty: every partial's sum is at least exp(0), or NaN
      std::copy_n(partial, 2 + d_head, state);
      continue;
    }
    const float max = larger(state[0], partial[0]);
    const float old_factor = exp(state[0] - max);
    const float new_factor = exp(partial[0] - max);
    state[0] = max;
    for (int64_t i = 1; i < 2 + d_head; ++i) {  // the sum, then o
      state[i] = std::fma(partial[i], new_factor, state[i] * old_factor);
    }
  }
}

void attend_finish(const float* state, int64_t d_head, float* out) {
  for (int64_t d = 0; d < d_head; ++d) out[d] = state[2 + d] / state[1];
}

}  // namespace thermocline::kernels::reference
