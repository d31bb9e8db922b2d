// 16 lanes of 32 bits in one AVX-512 register, a row of a matrix each: what the products with rows
// (rows_body.h, neurons_body.h) are written in. i32x16_avx2.h has the same functions. No STL;
// internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/f32x16_avx512.h"

namespace thermocline::kernels {
namespace {

struct I32x16 {
  __m512i v;
};

inline I32x16 all_lanes_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I32x16 load_i32(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void store_i32(I32x16 x, void* p) { _mm512_storeu_si512(p, x.v); }

inline I32x16 operator+(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32x16 operator-(I32x16 a, I32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
template <int n>
inline I32x16 shift_left(I32x16 x) {
  return {_mm512_slli_epi32(x.v, n)};
}
template <int n>
inline I32x16 shift_right(I32x16 x) {  // zeros come in
  return {_mm512_srli_epi32(x.v, n)};
}
inline I32x16 shift_right_by(I32x16 x, int n) {
  return {_mm512_srl_epi32(x.v, _mm_cvtsi32_si128(n))};
}
inline I32x16 and_lanes(I32x16 x, int mask) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi32(mask))};
}
// The bits of `mask` in every byte.
inline I32x16 and_bytes(I32x16 x, int mask) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi8(static_cast<char>(mask)))};
}
// a | (x & the bits of `mask` in every byte)
inline I32x16 or_bytes(I32x16 a, I32x16 x, int mask) {
  return {_mm512_ternarylogic_epi32(a.v, x.v, _mm512_set1_epi8(static_cast<char>(mask)), 0xf8)};
}
// ~x in lanes whose scale has its sign bit set.
inline I32x16 flip_where_negative(I32x16 x, F32x16 scale) {
  return {_mm512_xor_si512(x.v, _mm512_srai_epi32(_mm512_castps_si512(scale.v), 31))};
}

// sum plus, in each lane, its 4 weights of kBits unsigned bits times x's 4 signed bytes.
template <int kBits>
inline I32x16 add_dot(I32x16 sum, I32x16 weights, I32x16 x) {
  return {_mm512_dpbusd_epi32(sum.v, weights.v, x.v)};
}

inline F32x16 to_f32(I32x16 x) { return {_mm512_cvtepi32_ps(x.v)}; }
// f16 in the lower or upper half of each lane.
template <int half>
inline F32x16 f16_half(I32x16 x) {
  const __m512i low = half == 0 ? x.v : _mm512_srli_epi32(x.v, 16);
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(low))};
}
// bf16 there.
template <int half>
inline F32x16 bf16_half(I32x16 x) {
  return {_mm512_castsi512_ps(half == 0 ? _mm512_slli_epi32(x.v, 16)
                                        : _mm512_and_si512(x.v, _mm512_set1_epi32(-65536)))};
}
inline F32x16 as_f32(I32x16 x) { return {_mm512_castsi512_ps(x.v)}; }
// Byte i of each lane.
template <int i>
inline F32x16 u8_byte(I32x16 x) {
  return to_f32({_mm512_and_si512(_mm512_srli_epi32(x.v, 8 * i), _mm512_set1_epi32(255))});
}
template <int i>
inline F32x16 i8_byte(I32x16 x) {
  return to_f32({_mm512_srai_epi32(_mm512_slli_epi32(x.v, 24 - 8 * i), 24)});
}

// The low 4 bits of each lane, less 8; what lies above them does not matter.
inline F32x16 nibble_values(I32x16 x) {
  const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm512_permutexvar_ps(x.v, values)};
}
// 16 bytes: signed, unsigned, and with 128 for 0.
inline F32x16 i8_values(const uint8_t* p) {
  return to_f32({_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))});
}
inline F32x16 u8_values(const uint8_t* p) {
  return to_f32({_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))});
}
inline F32x16 quant_bytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return to_f32({_mm512_cvtepi8_epi32(_mm_xor_si128(bytes, _mm_set1_epi8(-128)))});
}
inline F32x16 bf16_values(const uint8_t* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
inline __m512i four_rows(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  const auto load = [](const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  __m512i x = _mm512_castsi128_si512(load(a));
  x = _mm512_inserti32x4(x, load(b), 1);
  x = _mm512_inserti32x4(x, load(c), 2);
  return _mm512_inserti32x4(x, load(d), 3);
}

// 16 bytes at p[row] of 16 rows: out[i] has dword i of each.
inline void transpose_rows(const uint8_t* const p[16], int64_t offset, I32x16 out[4]) {
  const __m512i a = four_rows(p[0] + offset, p[4] + offset, p[8] + offset, p[12] + offset);
  const __m512i b = four_rows(p[1] + offset, p[5] + offset, p[9] + offset, p[13] + offset);
  const __m512i c = four_rows(p[2] + offset, p[6] + offset, p[10] + offset, p[14] + offset);
  const __m512i d = four_rows(p[3] + offset, p[7] + offset, p[11] + offset, p[15] + offset);
  const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
  out[0] = {_mm512_unpacklo_epi64(ab_low, cd_low)};
  out[1] = {_mm512_unpackhi_epi64(ab_low, cd_low)};
  out[2] = {_mm512_unpacklo_epi64(ab_high, cd_high)};
  out[3] = {_mm512_unpackhi_epi64(ab_high, cd_high)};
}

}  // namespace
}  // namespace thermocline::kernels
