// Attention of one query head in 16 lanes: partial results of tiles, their merge, the final
// division. Included after a backend of F32x16, with THERMOCLINE_LEVEL its name. K and V rows are
// contiguous in d, so lanes run over d, and only the softmax's over positions.
#include "kernels/cpu/exp_body.h"
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

// K or V of one tile, from its first position on; T is float or uint16_t (f16).
template <typename T>
struct TileRows {
  const T* data;   // [n, stride], of which [n, d_head] are read
  int64_t stride;  // in elements
  int64_t n;       // positions in this tile, 1..kAttentionTile
  const T* row(int64_t i) const { return data + i * stride; }
};

// q . k of four positions, one chain of fma each.
template <typename T>
inline void four_dots(const float* q, const T* const k[4], int64_t d_head, float dots[4]) {
  F32x16 sum[4] = {all_lanes(0.0f), all_lanes(0.0f), all_lanes(0.0f), all_lanes(0.0f)};
  int64_t d = 0;
  for (; d + 16 <= d_head; d += 16) {
    const F32x16 x = load(q + d);
    for (int j = 0; j < 4; ++j) sum[j] = fma(x, load(k[j] + d), sum[j]);
  }
  if (d < d_head) {  // lanes without an element keep their value, the sign of a zero too
    const int64_t left = d_head - d;
    const F32x16 x = load_first(q + d, left);
    for (int j = 0; j < 4; ++j) {
      sum[j] = select_first(fma(x, load_first(k[j] + d, left), sum[j]), sum[j], left);
    }
  }
  add_lanes(sum, dots);
}

// dots [n]; room for whole fours. The last row stands in for rows that a last four lacks.
template <typename T>
inline void tile_dots(const float* q, const TileRows<T>& k, int64_t d_head, float* dots) {
  for (int64_t i = 0; i < k.n; i += 4) {
    const T* rows[4];
    for (int64_t j = 0; j < 4; ++j) rows[j] = k.row(i + j < k.n ? i + j : k.n - 1);
    four_dots(q, rows, d_head, dots + i);
  }
}

// x [n] -> exp(x * scale - max) in place; returns the maximum of x * scale, and the sum of exp.
struct Softmax {
  float max, sum;
};
inline Softmax tile_softmax(float* x, int64_t n, float scale) {
  const F32x16 nothing = all_lanes(-__builtin_inff());  // the score of a position that isn't there
  const int64_t n_vectors = (n + 15) / 16;
  F32x16 score[kAttentionTile / 16];
  F32x16 lane_max = nothing;
  for (int64_t j = 0; j < n_vectors; ++j) {
    const int64_t left = n - 16 * j < 16 ? n - 16 * j : 16;
    score[j] = select_first(load_first(x + 16 * j, left) * all_lanes(scale), nothing, left);
    lane_max = max(score[j], lane_max);
  }
  const float max = max_lanes(lane_max);
  F32x16 sum = all_lanes(0.0f);
  for (int64_t j = 0; j < n_vectors; ++j) {
    const F32x16 p = exp(score[j] - all_lanes(max));  // of nothing 0, which changes no sum
    sum = sum + p;
    store(p, x + 16 * j);
  }
  return {max, add_lanes(sum)};
}

// o[d] = sum over the tile's positions, ascending, of p * v[d], for N vectors of d that stay in
// registers; the last has `last` elements, 16 unless kTail.
template <int N, bool kTail, typename T>
inline void weigh_vectors(const float* p, const TileRows<T>& v, int64_t last, float* o) {
  F32x16 sum[N];
  for (int j = 0; j < N; ++j) sum[j] = all_lanes(0.0f);
  for (int64_t i = 0; i < v.n; ++i) {
    const F32x16 weight = all_lanes(p[i]);
    const T* row = v.row(i);
    for (int j = 0; j < N - kTail; ++j) sum[j] = fma(weight, load(row + 16 * j), sum[j]);
    if (kTail) sum[N - 1] = fma(weight, load_first(row + 16 * (N - 1), last), sum[N - 1]);
  }
  for (int j = 0; j < N - kTail; ++j) store(sum[j], o + 16 * j);
  if (kTail) store_first(sum[N - 1], o + 16 * (N - 1), last);
}

// The same for n values of d, 1..16 * N.
template <int N, typename T>
inline void weigh(const float* p, const TileRows<T>& v, int64_t n, float* o) {
  if constexpr (N > 1) {
    if (n <= 16 * (N - 1)) return weigh<N - 1>(p, v, n, o);
  }
  if (n == 16 * N) return weigh_vectors<N, false>(p, v, 16, o);
  weigh_vectors<N, true>(p, v, n - 16 * (N - 1), o);
}

template <typename T>
inline void attend_tile(const float* q, const TileRows<T>& k, const TileRows<T>& v, int64_t d_head,
                        float scale, float* partial) {
  alignas(64) float p[kAttentionTile];
  tile_dots(q, k, d_head, p);
  const Softmax softmax = tile_softmax(p, k.n, scale);
  partial[0] = softmax.max;
  partial[1] = softmax.sum;
  constexpr int64_t kChunk = 16 * kAccumulators;
  for (int64_t d = 0; d < d_head; d += kChunk) {
    const int64_t n = d_head - d < kChunk ? d_head - d : kChunk;
    weigh<kAccumulators>(p, TileRows<T>{v.data + d, v.stride, v.n}, n, partial + 2 + d);
  }
}

template <typename T>
inline void attend_tiles_of(const float* q, const KvHead& kv, int64_t n_positions, int64_t d_head,
                            float scale, int64_t tile_begin, int64_t tile_end, float* partial) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile, partial += 2 + d_head) {
    const int64_t begin = tile * kAttentionTile;
    const int64_t left = n_positions - begin;
    const int64_t n = left < kAttentionTile ? left : kAttentionTile;
    const int64_t offset = begin * kv.stride;
    attend_tile(q, TileRows<T>{static_cast<const T*>(kv.k) + offset, kv.stride, n},
                TileRows<T>{static_cast<const T*>(kv.v) + offset, kv.stride, n}, d_head, scale,
                partial);
  }
}

// state[i] = fma(partial[i], new_factor, state[i] * old_factor) for i in [0, n).
inline void merge(const float* partial, float new_factor, float old_factor, int64_t n,
                  float* state) {
  const F32x16 a = all_lanes(old_factor);
  const F32x16 b = all_lanes(new_factor);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(fma(load(partial + i), b, load(state + i) * a), state + i);
  if (i < n) {
    const int64_t left = n - i;
    store_first(fma(load_first(partial + i, left), b, load_first(state + i, left) * a), state + i,
                left);
  }
}

inline float exp_of_one(float x) {
  float lanes[16];
  store(exp(all_lanes(x)), lanes);
  return lanes[0];
}

}  // namespace

void attend_tiles(const float* q, const KvHead& kv, int64_t n_positions, int64_t d_head,
                  float scale, int64_t tile_begin, int64_t tile_end, float* partial) {
  const auto attend = kv.type == KvType::kF32 ? attend_tiles_of<float> : attend_tiles_of<uint16_t>;
  attend(q, kv, n_positions, d_head, scale, tile_begin, tile_end, partial);
}

void attend_merge(const float* partial, int64_t n_tiles, int64_t d_head, float* state) {
  for (; n_tiles > 0; --n_tiles, partial += 2 + d_head) {
    if (state[1] == 0.0f) {  // empty: every partial's sum is at least exp(0), or NaN
      for (int64_t i = 0; i < 2 + d_head; ++i) state[i] = partial[i];
      continue;
    }
    const float max = state[0] > partial[0] ? state[0] : partial[0];
    const float old_factor = exp_of_one(state[0] - max);
    const float new_factor = exp_of_one(partial[0] - max);
    state[0] = max;
    merge(partial + 1, new_factor, old_factor, 1 + d_head, state + 1);  // the sum, then o
  }
}

void attend_finish(const float* state, int64_t d_head, float* out) {
  const F32x16 sum = all_lanes(state[1]);
  int64_t d = 0;
  for (; d + 16 <= d_head; d += 16) store(load(state + 2 + d) / sum, out + d);
  if (d < d_head) store_first(load_first(state + 2 + d, d_head - d) / sum, out + d, d_head - d);
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
