// Weights of any type times f32 activations with AVX-512. Float types are read where they lie;
// quantized ones are unpacked a block at a time (a path for tests, not for speed). Contract: ops.h,
// matmul_f32.
#include <immintrin.h>

#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx512 {
namespace {

// Enough independent fmas to hide their latency, and no more streams of activations than a
// first-level cache of 8 ways holds where their distance is a multiple of 4 KB.
constexpr int kTileTokens = 8;

// The weights of 16 rows at one k.
struct F32 {
  static constexpr int64_t kBytes = 64;
  static THERMOCLINE_INLINE __m512 load(const uint8_t* p) { return _mm512_loadu_ps(p); }
};
struct F16 {
  static constexpr int64_t kBytes = 32;
  static THERMOCLINE_INLINE __m512 load(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};
struct BF16 {  // the upper half of an f32
  static constexpr int64_t kBytes = 32;
  static THERMOCLINE_INLINE __m512 load(const uint8_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
};

// Adds the products of n_k columns to out [T][16], which is taken as zeros where `first`.
template <class Weights, int T>
void tile(const uint8_t* weights, int64_t n_k, bool first, const float* x, int64_t x_stride,
          float* out, int64_t out_stride) {
  __m512 acc[T];
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    acc[t] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + t * out_stride);
  }
  for (int64_t k = 0; k < n_k; ++k) {
    const __m512 w = Weights::load(weights + k * Weights::kBytes);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) {
      acc[t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t * x_stride + k]), acc[t]);
    }
  }
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) _mm512_storeu_ps(out + t * out_stride, acc[t]);
}

template <class Weights>
void tiles(const uint8_t* weights, int64_t n_k, bool first, const float* x, int64_t x_stride,
           int64_t n_tokens, float* out, int64_t out_stride) {
  using Tile = void (*)(const uint8_t*, int64_t, bool, const float*, int64_t, float*, int64_t);
  static constexpr Tile kTiles[kTileTokens] = {tile<Weights, 1>, tile<Weights, 2>, tile<Weights, 3>,
                                               tile<Weights, 4>, tile<Weights, 5>, tile<Weights, 6>,
                                               tile<Weights, 7>, tile<Weights, 8>};
  for (int64_t t = 0; t < n_tokens; t += kTileTokens) {
    const int64_t left = n_tokens - t;
    kTiles[(left < kTileTokens ? left : kTileTokens) - 1](
        weights, n_k, first, x + t * x_stride, x_stride, out + t * out_stride, out_stride);
  }
}

}  // namespace

void matmul_f32(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const float* x,
                int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride) {
  for (int64_t g = group_begin; g < group_end; ++g, out += kGroupRows) {
    const uint8_t* group = w.data + g * w.group_bytes;
    switch (w.type) {
      case TensorType::kF32:
        tiles<F32>(group, w.n_cols, true, x, x_stride, n_tokens, out, out_stride);
        break;
      case TensorType::kF16:
        tiles<F16>(group, w.n_cols, true, x, x_stride, n_tokens, out, out_stride);
        break;
      case TensorType::kBF16:
        tiles<BF16>(group, w.n_cols, true, x, x_stride, n_tokens, out, out_stride);
        break;
      default:
        for (int64_t k = 0; k < w.n_cols; k += kBlockCols) {
          alignas(64) float values[kBlockCols][kGroupRows];
          unpack_block(w, g, k / kBlockCols, values);
          tiles<F32>(reinterpret_cast<const uint8_t*>(values), kBlockCols, k == 0, x + k, x_stride,
                     n_tokens, out, out_stride);
        }
    }
  }
}

}  // namespace thermocline::kernels::avx512
