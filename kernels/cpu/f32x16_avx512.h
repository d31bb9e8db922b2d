// 16 f32 lanes in one AVX-512 register: what the bodies of ops (*_body.h) are written in. Only what
// they need, and no op. f32x16_avx2.h has the same functions. No STL; internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/lanes256.h"

namespace thermocline::kernels {
namespace {

struct F32x16 {
  __m512 v;
};

// How many F32x16 sums a loop keeps in registers.
inline constexpr int kAccumulators = 8;

// The lowest n lanes, n in [0, 16].
inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline F32x16 all_lanes(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 load(const uint16_t* p) {  // f16
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store(F32x16 x, float* p) { _mm512_storeu_ps(p, x.v); }
inline void store(F32x16 x, uint16_t* p) {  // f16, half to even
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

// The first n elements alone are touched; lanes without an element are loaded as +0.
inline F32x16 load_first(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline F32x16 load_first(const uint16_t* p, int64_t n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p))};
}
inline void store_first(F32x16 x, float* p, int64_t n) { _mm512_mask_storeu_ps(p, first(n), x.v); }
inline void store_first(F32x16 x, uint16_t* p, int64_t n) {
  _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
// The first n lanes of a, the others of b.
inline F32x16 select_first(F32x16 a, F32x16 b, int64_t n) {
  return {_mm512_mask_blend_ps(first(n), b.v, a.v)};
}

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a * b - c in even lanes, a * b + c in odd ones.
inline F32x16 fma_subtract_add(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmaddsub_ps(a.v, b.v, c.v)};
}
// -x, of zeros and NaNs too.
inline F32x16 negate(F32x16 x) { return {_mm512_xor_ps(x.v, _mm512_set1_ps(-0.0f))}; }
// a > b ? a : b and a < b ? a : b, so the second of +0 and -0 and where one is NaN.
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 round_to_even(F32x16 x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// x * 2^n with one rounding; n whole, in [-150, 128].
inline F32x16 times_power_of_two(F32x16 x, F32x16 n) { return {_mm512_scalef_ps(x.v, n.v)}; }

inline F32x16 even_twice(F32x16 x) { return {_mm512_moveldup_ps(x.v)}; }       // x0 x0 x2 x2 ...
inline F32x16 odd_twice(F32x16 x) { return {_mm512_movehdup_ps(x.v)}; }        // x1 x1 x3 x3 ...
inline F32x16 swap_pairs(F32x16 x) { return {_mm512_permute_ps(x.v, 0xb1)}; }  // x1 x0 x3 x2 ...
// a0 b0 a1 b1 ... of the first 8 lanes of each.
inline F32x16 interleave_low(F32x16 a, F32x16 b) {
  const Interleaved pairs = interleave(_mm512_castps512_ps256(a.v), _mm512_castps512_ps256(b.v));
  return {_mm512_insertf32x8(_mm512_castps256_ps512(pairs.low), pairs.high, 1)};
}

inline __m256 high_half(F32x16 x) { return _mm512_extractf32x8_ps(x.v, 1); }
inline __m256 add_halves(F32x16 x) {
  return _mm256_add_ps(_mm512_castps512_ps256(x.v), high_half(x));
}
// Lanes 8, 4, 2, 1 apart are combined.
inline float add_lanes(F32x16 x) { return add_lanes(add_halves(x)); }
inline float max_lanes(F32x16 x) {
  return max_lanes(_mm256_max_ps(_mm512_castps512_ps256(x.v), high_half(x)));
}
inline void add_lanes(const F32x16 x[4], float sums[4]) {
  _mm_storeu_ps(sums,
                add_lanes(add_halves(x[0]), add_halves(x[1]), add_halves(x[2]), add_halves(x[3])));
}

}  // namespace
}  // namespace thermocline::kernels
