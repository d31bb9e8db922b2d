// Quantized weights times int8 activations with AVX-512 VNNI: the loops over groups, tiles of
// tokens and blocks. What a block is: blocks_avx512.h. Contract: ops.h, matmul_int8.
//
// No software prefetch: a group is one stream, and the processor's own prefetchers follow it better
// (Zen 4: 101 % of the plain read without, 84 to 96 % with prefetch 1 to 8 KB ahead).
#include <immintrin.h>

#include "kernels/cpu/blocks_avx512.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx512 {
namespace {

// A tile's integer sums and outputs take 2 registers a token (3 in Q6_K) of the 32; and its streams
// of activations fit a first-level cache of 8 ways where their distance is a multiple of 4 KB.
constexpr int kTileTokens = 8;

// 16 rows x T tokens, all blocks of k.
template <class Block, int T>
void tile(const PackedMatrix& w, const uint8_t* group, const QuantizedRows& x, int64_t token,
          float* out, int64_t out_stride) {
  const int64_t n_blocks = w.n_cols / kBlockCols;
  const int64_t stride = x.stride / kBlockCols;  // of scales and sums
  TokenBlock<T> at = {x.q + token * x.stride, x.scale + token * stride, x.sum + token * stride,
                      x.stride, stride};
  __m512 acc[T];
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) acc[t] = _mm512_setzero_ps();
  typename Block::Super super = {};
  const uint8_t* p = group;
  for (int64_t b = 0; b < n_blocks; ++b) {
    if (w.super_bytes > 0 && (b == 0 || (w.phase + b) % 8 == 0)) {
      super = Block::load_super(p);
      p += w.super_bytes;
    }
    Block::template add<T>(p, super, at, acc);
    p += w.block_bytes;
    at.q += kBlockCols;
    ++at.scale;
    ++at.sum;
  }
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) _mm512_storeu_ps(out + (token + t) * out_stride, acc[t]);
}

template <class Block>
void multiply(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const QuantizedRows& x,
              int64_t n_tokens, float* out, int64_t out_stride) {
  using Tile =
      void (*)(const PackedMatrix&, const uint8_t*, const QuantizedRows&, int64_t, float*, int64_t);
  static constexpr Tile kTiles[kTileTokens] = {tile<Block, 1>, tile<Block, 2>, tile<Block, 3>,
                                               tile<Block, 4>, tile<Block, 5>, tile<Block, 6>,
                                               tile<Block, 7>, tile<Block, 8>};
  for (int64_t g = group_begin; g < group_end; ++g) {  // its weights stay in cache for all tiles
    const uint8_t* group = w.data + g * w.group_bytes;
    for (int64_t t = 0; t < n_tokens; t += kTileTokens) {
      const int64_t left = n_tokens - t;
      kTiles[(left < kTileTokens ? left : kTileTokens) - 1](
          w, group, x, t, out + (g - group_begin) * kGroupRows, out_stride);
    }
  }
}

}  // namespace

void matmul_int8(const PackedMatrix& w, int64_t group_begin, int64_t group_end,
                 const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride) {
  switch (w.type) {
    case TensorType::kQ8_0:
      return multiply<Q8_0>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ4_0:
      return multiply<Q4_0>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ4_K:
      return multiply<Q4_K>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    case TensorType::kQ6_K:
      return multiply<Q6_K>(w, group_begin, group_end, x, n_tokens, out, out_stride);
    default:
      __builtin_trap();  // float weights take matmul_f32
  }
}

}  // namespace thermocline::kernels::avx512
