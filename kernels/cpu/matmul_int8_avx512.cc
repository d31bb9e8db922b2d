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

}  // namespace
}  // namespace thermocline::kernels::avx512

#define THERMOCLINE_LEVEL avx512
#include "kernels/cpu/matmul_int8_body.h"
