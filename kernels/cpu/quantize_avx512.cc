// Activations to int8, 32 at a time, with AVX-512. Contract: ops.h, QuantizedRows;
// reference/quantize.cc says how numbers that are not finite pass through.
#include <immintrin.h>

#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::avx512 {
namespace {

THERMOCLINE_INLINE __m512i steps_of(__m512 values, float scale) {
  __m512 v = _mm512_div_ps(values, _mm512_set1_ps(scale));
  v = _mm512_min_ps(v, _mm512_set1_ps(127.0f));  // of a NaN: 127
  v = _mm512_max_ps(v, _mm512_set1_ps(-127.0f));
  return scale == 0.0f ? _mm512_setzero_si512() : _mm512_cvtps_epi32(v);
}

THERMOCLINE_INLINE void store_bytes(int8_t* p, __m512i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

}  // namespace

void quantize(const float* x, int64_t n, int8_t* q, float* scale, int32_t* sum) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t b = 0; b < n / kBlockCols; ++b) {
    const __m512 first = _mm512_loadu_ps(x + b * kBlockCols);
    const __m512 second = _mm512_loadu_ps(x + b * kBlockCols + 16);
    const __m512i most =  // bit patterns of magnitudes order as the magnitudes do
        _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(first), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(second), magnitude));
    const __m128i largest = _mm_cvtsi32_si128(_mm512_reduce_max_epi32(most));
    scale[b] = _mm_cvtss_f32(_mm_castsi128_ps(largest)) / 127.0f;
    const __m512i steps0 = steps_of(first, scale[b]), steps1 = steps_of(second, scale[b]);
    sum[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(steps0, steps1));
    store_bytes(q + b * kBlockCols, steps0);
    store_bytes(q + b * kBlockCols + 16, steps1);
  }
}

}  // namespace thermocline::kernels::avx512
