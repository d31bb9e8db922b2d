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

}  // namespace
}  // namespace thermocline::kernels::avx2

#define THERMOCLINE_LEVEL avx2
#include "kernels/cpu/matmul_int8_body.h"
