// 16 lanes of 32 bits in two AVX2 registers, a row of a matrix each: what the products with rows
// (rows_body.h, neurons_body.h) are written in. i32x16_avx512.h has the same functions. No STL;
// internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/f32x16_avx2.h"

namespace thermocline::kernels {
namespace {

struct I32x16 {
  __m256i low, high;
};

inline __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

inline I32x16 all_lanes_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I32x16 load_i32(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return {load_256(bytes), load_256(bytes + 32)};
}
inline void store_i32(I32x16 x, void* p) {
  auto* out = static_cast<__m256i*>(p);
  _mm256_storeu_si256(out, x.low);
  _mm256_storeu_si256(out + 1, x.high);
}

inline I32x16 operator+(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline I32x16 operator-(I32x16 a, I32x16 b) {
  return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}
template <int n>
inline I32x16 shift_left(I32x16 x) {
  return {_mm256_slli_epi32(x.low, n), _mm256_slli_epi32(x.high, n)};
}
template <int n>
inline I32x16 shift_right(I32x16 x) {  // zeros come in
  return {_mm256_srli_epi32(x.low, n), _mm256_srli_epi32(x.high, n)};
}
inline I32x16 shift_right_by(I32x16 x, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(x.low, count), _mm256_srl_epi32(x.high, count)};
}
inline I32x16 and_lanes(I32x16 x, int mask) {
  const __m256i bits = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(x.low, bits), _mm256_and_si256(x.high, bits)};
}
// The bits of `mask` in every byte.
inline I32x16 and_bytes(I32x16 x, int mask) {
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(mask));
  return {_mm256_and_si256(x.low, bits), _mm256_and_si256(x.high, bits)};
}
// a | (x & the bits of `mask` in every byte)
inline I32x16 or_bytes(I32x16 a, I32x16 x, int mask) {
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(mask));
  return {_mm256_or_si256(a.low, _mm256_and_si256(x.low, bits)),
          _mm256_or_si256(a.high, _mm256_and_si256(x.high, bits))};
}
// ~x in lanes whose scale has its sign bit set.
inline I32x16 flip_where_negative(I32x16 x, F32x16 scale) {
  return {_mm256_xor_si256(x.low, _mm256_srai_epi32(_mm256_castps_si256(scale.low), 31)),
          _mm256_xor_si256(x.high, _mm256_srai_epi32(_mm256_castps_si256(scale.high), 31))};
}

// Pairs of products are added in 16 bits with saturation: 7 bits cannot reach it (2 * 127 * 127 <
// 2^15), so the eighth is multiplied by itself.
template <int kBits>
inline __m256i add_dot_half(__m256i sum, __m256i weights, __m256i x) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (kBits == 8) {
    const __m256i top = _mm256_and_si256(_mm256_srli_epi32(weights, 7), _mm256_set1_epi8(1));
    const __m256i pairs = _mm256_maddubs_epi16(top, x);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(128)));
    weights = _mm256_and_si256(weights, _mm256_set1_epi8(127));
  }
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, x), ones));
}
// sum plus, in each lane, its 4 weights of kBits unsigned bits times x's 4 signed bytes.
template <int kBits>
inline I32x16 add_dot(I32x16 sum, I32x16 weights, I32x16 x) {
  return {add_dot_half<kBits>(sum.low, weights.low, x.low),
          add_dot_half<kBits>(sum.high, weights.high, x.high)};
}

inline F32x16 to_f32(I32x16 x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }
// f16 in the lower or upper half of each lane.
template <int half>
inline F32x16 f16_half(I32x16 x) {
  const auto values = [](__m256i lanes) {
    lanes = half == 0 ? _mm256_and_si256(lanes, _mm256_set1_epi32(0xffff))
                      : _mm256_srli_epi32(lanes, 16);
    return _mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
  };
  return {values(x.low), values(x.high)};
}
// bf16 there.
template <int half>
inline F32x16 bf16_half(I32x16 x) {
  const auto values = [](__m256i lanes) {
    return _mm256_castsi256_ps(half == 0 ? _mm256_slli_epi32(lanes, 16)
                                         : _mm256_and_si256(lanes, _mm256_set1_epi32(-65536)));
  };
  return {values(x.low), values(x.high)};
}
inline F32x16 as_f32(I32x16 x) { return {_mm256_castsi256_ps(x.low), _mm256_castsi256_ps(x.high)}; }
// Byte i of each lane.
template <int i>
inline F32x16 u8_byte(I32x16 x) {
  return to_f32(and_lanes(shift_right<8 * i>(x), 255));
}
template <int i>
inline F32x16 i8_byte(I32x16 x) {
  const I32x16 top = shift_left<24 - 8 * i>(x);
  return to_f32({_mm256_srai_epi32(top.low, 24), _mm256_srai_epi32(top.high, 24)});
}

// The low 4 bits of each lane, less 8; what lies above them does not matter.
inline F32x16 nibble_values(I32x16 x) { return to_f32(and_lanes(x, 15) - all_lanes_i32(8)); }
// 16 bytes: signed, unsigned, and with 128 for 0.
inline F32x16 i8_values(const uint8_t* p) {
  const __m128i bytes = load_128(p);
  return to_f32({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}
inline F32x16 u8_values(const uint8_t* p) {
  const __m128i bytes = load_128(p);
  return to_f32({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
}
inline F32x16 quant_bytes(const uint8_t* p) {
  const __m128i bytes = _mm_xor_si128(load_128(p), _mm_set1_epi8(-128));
  return to_f32({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}
inline F32x16 bf16_values(const uint8_t* p) {
  const __m256i low = _mm256_cvtepu16_epi32(load_128(p));
  const __m256i high = _mm256_cvtepu16_epi32(load_128(p + 16));
  return as_f32({_mm256_slli_epi32(low, 16), _mm256_slli_epi32(high, 16)});
}
// 16 bytes at p[row] of 16 rows: out[i] has dword i of each.
inline void transpose_rows(const uint8_t* const p[16], int64_t offset, I32x16 out[4]) {
  __m256i turned[2][4];
  for (int half = 0; half < 2; ++half) {  // rows 0..7, 8..15
    const uint8_t* const* row = p + 8 * half;
    __m256i x[4];
    for (int i = 0; i < 4; ++i) {  // rows i and i + 4
      x[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(row[i] + offset)),
                                     load_128(row[i + 4] + offset), 1);
    }
    const __m256i ab_low = _mm256_unpacklo_epi32(x[0], x[1]);
    const __m256i ab_high = _mm256_unpackhi_epi32(x[0], x[1]);
    const __m256i cd_low = _mm256_unpacklo_epi32(x[2], x[3]);
    const __m256i cd_high = _mm256_unpackhi_epi32(x[2], x[3]);
    turned[half][0] = _mm256_unpacklo_epi64(ab_low, cd_low);
    turned[half][1] = _mm256_unpackhi_epi64(ab_low, cd_low);
    turned[half][2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    turned[half][3] = _mm256_unpackhi_epi64(ab_high, cd_high);
  }
  for (int i = 0; i < 4; ++i) out[i] = {turned[0][i], turned[1][i]};
}

}  // namespace
}  // namespace thermocline::kernels
