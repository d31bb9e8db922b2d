// Reductions of 256-bit registers, and the interleaving of two, that both backends of F32x16 share.
// No STL, and internal linkage throughout: compiled for AVX-512, none of it may become the copy
// that the linker keeps for other files.
#pragma once

#include <immintrin.h>

namespace thermocline::kernels {
namespace {

// Lanes 4, 2, 1 apart are added; additions commute, so which operand comes first does not matter.
inline float add_lanes(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The same for four registers at a time, results in order.
inline __m128 add_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),   // a.low, b.low
                                  _mm256_permute2f128_ps(a, b, 0x31));  // a.high, b.high
  const __m256 cd =
      _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
  const __m256 two = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
  const __m256 one = _mm256_hadd_ps(two, two);  // a, c, a, c | b, d, b, d
  return _mm_unpacklo_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps(one, 1));
}

// As above with MAXPS, which gives the second operand when neither is larger: lower lanes first.
inline float max_lanes(__m256 x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

struct Interleaved {
  __m256 low, high;
};

// a0 b0 a1 b1 ... a3 b3 and a4 b4 ... a7 b7.
inline Interleaved interleave(__m256 a, __m256 b) {
  const __m256 low = _mm256_unpacklo_ps(a, b);
  const __m256 high = _mm256_unpackhi_ps(a, b);
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}

// 1 / sqrt(x), both correctly rounded.
inline float inverse_sqrt(float x) { return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

}  // namespace
}  // namespace thermocline::kernels
