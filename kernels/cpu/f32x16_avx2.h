// 16 f32 lanes in two AVX registers: what the bodies of ops (*_body.h) are written in. Only what
// they need, and no op. f32x16_avx512.h has the same functions. No STL; internal linkage
// throughout.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/lanes256.h"

namespace thermocline::kernels {
namespace {

struct F32x16 {
  __m256 low, high;
};

// How many F32x16 sums a loop keeps in registers.
inline constexpr int kAccumulators = 4;

// 8 lanes from kFirst + 16 - n are all ones in the lowest n of them, also for n in (8, 16].
alignas(64) constexpr int32_t kFirst[32] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                            -1, -1, -1, -1, -1, -1, -1, -1};
inline __m256i first_low(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirst + 16 - n));
}
inline __m256i first_high(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirst + 24 - n));
}

inline F32x16 f16_to_f32(__m256i halves) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}

inline F32x16 all_lanes(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F32x16 load(const uint16_t* p) {  // f16
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store(F32x16 x, float* p) {
  _mm256_storeu_ps(p, x.low);
  _mm256_storeu_ps(p + 8, x.high);
}
inline void store(F32x16 x, uint16_t* p) {  // f16, half to even
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8),
                   _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT));
}

// The first n elements alone are touched; lanes without an element are loaded as +0.
inline F32x16 load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first_low(n)), _mm256_maskload_ps(p + 8, first_high(n))};
}
// AVX2 masks 32 bits at a time: pairs of halves, then the odd one, put into its place by compare.
inline F32x16 load_first(const uint16_t* p, int64_t n) {
  __m256i halves = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_low(n / 2));
  if (n % 2 != 0) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i place = _mm256_cmpeq_epi32(lanes, _mm256_set1_epi32(static_cast<int>(n / 2)));
    halves = _mm256_or_si256(halves, _mm256_and_si256(place, _mm256_set1_epi32(p[n - 1])));
  }
  return f16_to_f32(halves);
}
inline void store_first(F32x16 x, float* p, int64_t n) {
  _mm256_maskstore_ps(p, first_low(n), x.low);
  _mm256_maskstore_ps(p + 8, first_high(n), x.high);
}
inline void store_first(F32x16 x, uint16_t* p, int64_t n) {
  uint16_t halves[16];
  store(x, halves);
  for (int64_t i = 0; i < n; ++i) p[i] = halves[i];
}
// The first n lanes of a, the others of b.
inline F32x16 select_first(F32x16 a, F32x16 b, int64_t n) {
  return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(first_low(n))),
          _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(first_high(n)))};
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
// a * b - c in even lanes, a * b + c in odd ones.
inline F32x16 fma_subtract_add(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmaddsub_ps(a.low, b.low, c.low), _mm256_fmaddsub_ps(a.high, b.high, c.high)};
}
// -x, of zeros and NaNs too.
inline F32x16 negate(F32x16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(x.low, sign), _mm256_xor_ps(x.high, sign)};
}
// a > b ? a : b and a < b ? a : b, so the second of +0 and -0 and where one is NaN.
inline F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
inline F32x16 round_to_even(F32x16 x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, kMode), _mm256_round_ps(x.high, kMode)};
}
// 2^n through the exponent's bits, n in [-126, 127].
inline __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// Two factors, since n may be outside of an f32's exponents; the first product is exact.
inline __m256 times_power_of_two(__m256 x, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  return _mm256_mul_ps(_mm256_mul_ps(x, power_of_two(half)), power_of_two(rest));
}
// x * 2^n with one rounding; n whole, in [-150, 128].
inline F32x16 times_power_of_two(F32x16 x, F32x16 n) {
  return {times_power_of_two(x.low, n.low), times_power_of_two(x.high, n.high)};
}

inline F32x16 even_twice(F32x16 x) {  // x0 x0 x2 x2 ...
  return {_mm256_moveldup_ps(x.low), _mm256_moveldup_ps(x.high)};
}
inline F32x16 odd_twice(F32x16 x) {  // x1 x1 x3 x3 ...
  return {_mm256_movehdup_ps(x.low), _mm256_movehdup_ps(x.high)};
}
inline F32x16 swap_pairs(F32x16 x) {  // x1 x0 x3 x2 ...
  return {_mm256_permute_ps(x.low, 0xb1), _mm256_permute_ps(x.high, 0xb1)};
}
// a0 b0 a1 b1 ... of the first 8 lanes of each.
inline F32x16 interleave_low(F32x16 a, F32x16 b) {
  const Interleaved pairs = interleave(a.low, b.low);
  return {pairs.low, pairs.high};
}

inline __m256 add_halves(F32x16 x) { return _mm256_add_ps(x.low, x.high); }
// Lanes 8, 4, 2, 1 apart are combined.
inline float add_lanes(F32x16 x) { return add_lanes(add_halves(x)); }
inline float max_lanes(F32x16 x) { return max_lanes(_mm256_max_ps(x.low, x.high)); }
inline void add_lanes(const F32x16 x[4], float sums[4]) {
  _mm_storeu_ps(sums,
                add_lanes(add_halves(x[0]), add_halves(x[1]), add_halves(x[2]), add_halves(x[3])));
}

}  // namespace
}  // namespace thermocline::kernels
