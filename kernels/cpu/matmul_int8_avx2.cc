// Quantized weights times int8 activations with AVX2: the loops over groups, tiles of tokens and
// blocks. What a block is: blocks_avx2.h. Contract: ops.h, matmul_int8.
#include <immintrin.h>

#include "kernels/cpu/blocks_avx2.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx2 {
namespace {

// 2 x 4 outputs, 4 integer sums, and the weights and temporaries of one add() in 16 registers.
constexpr int kTileTokens = 4;

// 16 rows x T tokens, all blocks of k.
template <class Block, int T>
void tile(const PackedMatrix& w, const uint8_t* group, const QuantizedRows& x, int64_t token,
          float* out, int64_t out_stride) {
  const int64_t n_blocks = w.n_cols / kBlockCols;
  const int64_t stride = x.stride / kBlockCols;  // of scales and sums
  TokenBlock<T> at = {x.q + token * x.stride, x.scale + token * stride, x.sum + token * stride,
                      x.stride, stride};
  __m256 acc[2][T];
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
  typename Block::Super super[2] = {};
  const uint8_t* p = group;
  for (int64_t b = 0; b < n_blocks; ++b) {
    if (w.super_bytes > 0 && (b == 0 || (w.phase + b) % 8 == 0)) {
      super[0] = Block::load_super(p, 0);
      super[1] = Block::load_super(p, 1);
      p += w.super_bytes;
    }
    Block::template add<T>(p, 0, super[0], at, acc[0]);
    Block::template add<T>(p, 1, super[1], at, acc[1]);
    p += w.block_bytes;
    at.q += kBlockCols;
    ++at.scale;
    ++at.sum;
  }
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    _mm256_storeu_ps(out + (token + t) * out_stride, acc[0][t]);
    _mm256_storeu_ps(out + (token + t) * out_stride + 8, acc[1][t]);
  }
}

template <class Block>
void multiply(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const QuantizedRows& x,
              int64_t n_tokens, float* out, int64_t out_stride) {
  using Tile =
      void (*)(const PackedMatrix&, const uint8_t*, const QuantizedRows&, int64_t, float*, int64_t);
  static constexpr Tile kTiles[kTileTokens] = {tile<Block, 1>, tile<Block, 2>, tile<Block, 3>,
                                               tile<Block, 4>};
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

}  // namespace thermocline::kernels::avx2
