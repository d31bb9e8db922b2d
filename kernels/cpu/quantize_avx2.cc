// Activations to int8, 32 at a time, with AVX2. Contract: ops.h, QuantizedRows;
// reference/quantize.cc says how numbers that are not finite pass through.
#include <immintrin.h>

#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx2 {
namespace {

// The largest of 4 x 8 bit patterns of magnitudes.
THERMOCLINE_INLINE float largest_magnitude(const __m256* x) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  THERMOCLINE_UNROLL
  for (int i = 0; i < 4; ++i) {
    most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
  }
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

THERMOCLINE_INLINE int32_t add_lanes(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}

}  // namespace

void quantize(const float* x, int64_t n, int8_t* q, float* scale, int32_t* sum) {
  for (int64_t b = 0; b < n / kBlockCols; ++b) {
    __m256 values[4];
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) values[i] = _mm256_loadu_ps(x + b * kBlockCols + 8 * i);
    scale[b] = largest_magnitude(values) / 127.0f;
    __m256i steps[4];
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      __m256 v = _mm256_div_ps(values[i], _mm256_set1_ps(scale[b]));
      v = _mm256_min_ps(v, _mm256_set1_ps(127.0f));  // of a NaN: 127
      v = _mm256_max_ps(v, _mm256_set1_ps(-127.0f));
      steps[i] = scale[b] == 0.0f ? _mm256_setzero_si256() : _mm256_cvtps_epi32(v);
    }
    sum[b] = add_lanes(_mm256_add_epi32(_mm256_add_epi32(steps[0], steps[1]),
                                        _mm256_add_epi32(steps[2], steps[3])));
    // Packing works within 128-bit lanes; the permutation puts the groups of 4 in order again.
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(steps[0], steps[1]),
                                              _mm256_packs_epi32(steps[2], steps[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + b * kBlockCols),
                        _mm256_permutevar8x32_epi32(packed, order));
  }
}

}  // namespace thermocline::kernels::avx2
