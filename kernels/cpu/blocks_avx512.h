// One struct a quantized type: how a block of 16 rows x 32 columns is multiplied with the int8
// activations of T tokens in AVX-512 registers. A further type is a further struct. No loops over
// blocks, groups or tiles (matmul_int8_avx512.cc).
//
// Each struct has add(): it adds to acc[t] (16 rows) the products of a block, with its
// super-block's part, and the activations of token t, under ops.h's contract. The layout: packed.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/unroll.h"
#include "kernels/packed.h"

namespace thermocline::kernels::avx512 {
namespace {

THERMOCLINE_INLINE __m512 load_f16x16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// One block of T tokens: token t's values are t * stride after token 0's.
template <int T>
struct TokenBlock {
  const int8_t* q;     // [T][q_stride], the first 32
  const float* scale;  // [T][stride], the first
  const int32_t* sum;  // [T][stride], the first
  int64_t q_stride;
  int64_t stride;

  THERMOCLINE_INLINE __m512i four(int t, int k) const {  // values k..k+3 in every lane
    int32_t bits;
    __builtin_memcpy(&bits, q + t * q_stride + k, sizeof(bits));
    return _mm512_set1_epi32(bits);
  }
  THERMOCLINE_INLINE __m512 scale_of(int t) const { return _mm512_set1_ps(scale[t * stride]); }
  THERMOCLINE_INLINE __m512i sum_of(int t) const { return _mm512_set1_epi32(sum[t * stride]); }
};

template <int T>
THERMOCLINE_INLINE void set_zero(__m512i* sums) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) sums[t] = _mm512_setzero_si512();
}

// sums[t] plus, in each lane, the lane's weights (unsigned) of k..k+3 times token t's activations.
template <int T>
THERMOCLINE_INLINE void add_chunk(__m512i weights, const TokenBlock<T>& x, int k, __m512i* sums) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) sums[t] = _mm512_dpbusd_epi32(sums[t], weights, x.four(t, k));
}

// Takes off the zero point, 2^log2, times the sum of the activations.
template <int T>
THERMOCLINE_INLINE void subtract_zero_point(int log2, const TokenBlock<T>& x, __m512i* sums) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    sums[t] = _mm512_sub_epi32(sums[t], _mm512_slli_epi32(x.sum_of(t), log2));
  }
}

// acc[t] += sums[t] * f32(scale * token t's scale), in one rounding after that of the scales.
template <int T>
THERMOCLINE_INLINE void add_scaled(const __m512i* sums, __m512 scale, const TokenBlock<T>& x,
                                   __m512* acc) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    const __m512 s = _mm512_mul_ps(scale, x.scale_of(t));
    acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t]), s, acc[t]);
  }
}

// sums[t] of 4 chunks that hold k = 4c + i in low nibbles and k = 16 + 4c + i in high ones.
template <int T>
THERMOCLINE_INLINE void add_nibbles(const uint8_t* quants, const TokenBlock<T>& x, __m512i* sums) {
  const __m512i low = _mm512_set1_epi8(15);
  THERMOCLINE_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512i both = _mm512_loadu_si512(quants + 64 * c);
    add_chunk<T>(_mm512_and_si512(both, low), x, 4 * c, sums);
    add_chunk<T>(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), x, 16 + 4 * c, sums);
  }
}

// acc[t] -= the sum of token t's activations * f32(min * token t's scale), in one rounding.
template <int T>
THERMOCLINE_INLINE void subtract_min(__m512 min, const TokenBlock<T>& x, __m512* acc) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    const __m512 sum = _mm512_cvtepi32_ps(x.sum_of(t));
    acc[t] = _mm512_fnmadd_ps(sum, _mm512_mul_ps(min, x.scale_of(t)), acc[t]);
  }
}

THERMOCLINE_INLINE __m512 load_u8x16(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

struct NoSuper {};

struct Q8_0 {
  using Super = NoSuper;
  static THERMOCLINE_INLINE Super load_super(const uint8_t*) { return {}; }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, const Super& super,
                                     const TokenBlock<T>& x, __m512* acc) {
    __m512i sums[T];
    set_zero<T>(sums);
    THERMOCLINE_UNROLL
    for (int c = 0; c < 8; ++c) add_chunk<T>(_mm512_loadu_si512(block + 64 * c), x, 4 * c, sums);
    subtract_zero_point<T>(7, x, sums);
    add_scaled<T>(sums, load_f16x16(block + 512), x, acc);
  }
};

struct Q4_0 {
  using Super = NoSuper;
  static THERMOCLINE_INLINE Super load_super(const uint8_t*) { return {}; }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, const Super& super,
                                     const TokenBlock<T>& x, __m512* acc) {
    __m512i sums[T];
    set_zero<T>(sums);
    add_nibbles<T>(block, x, sums);
    subtract_zero_point<T>(3, x, sums);
    add_scaled<T>(sums, load_f16x16(block + 256), x, acc);
  }
};

struct Q4_K {
  struct Super {
    __m512 d, dmin;
  };
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p) {
    return {load_f16x16(p), load_f16x16(p + 32)};
  }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, const Super& super,
                                     const TokenBlock<T>& x, __m512* acc) {
    __m512i sums[T];
    set_zero<T>(sums);
    add_nibbles<T>(block, x, sums);
    add_scaled<T>(sums, _mm512_mul_ps(super.d, load_u8x16(block + 256)), x, acc);
    subtract_min<T>(_mm512_mul_ps(super.dmin, load_u8x16(block + 272)), x, acc);
  }
};

struct Q5_K {
  using Super = Q4_K::Super;
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p) { return Q4_K::load_super(p); }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, const Super& super,
                                     const TokenBlock<T>& x, __m512* acc) {
    const __m512i low = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);
    const __m512i bits = _mm512_loadu_si512(block + 256);
    const __m512i low_at_4[4] = {_mm512_slli_epi16(bits, 4), _mm512_slli_epi16(bits, 3),
                                 _mm512_slli_epi16(bits, 2), _mm512_slli_epi16(bits, 1)};
    const __m512i high_at_4[4] = {bits, _mm512_srli_epi16(bits, 1), _mm512_srli_epi16(bits, 2),
                                  _mm512_srli_epi16(bits, 3)};
    __m512i sums[T];
    set_zero<T>(sums);
    THERMOCLINE_UNROLL
    for (int c = 0; c < 4; ++c) {
      const __m512i both = _mm512_loadu_si512(block + 64 * c);
      const __m512i first = _mm512_and_si512(both, low);
      const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
      // 0xf8: nibble | (at_4 & fifth)
      add_chunk<T>(_mm512_ternarylogic_epi32(first, low_at_4[c], fifth, 0xf8), x, 4 * c, sums);
      add_chunk<T>(_mm512_ternarylogic_epi32(second, high_at_4[c], fifth, 0xf8), x, 16 + 4 * c,
                   sums);
    }
    add_scaled<T>(sums, _mm512_mul_ps(super.d, load_u8x16(block + 320)), x, acc);
    subtract_min<T>(_mm512_mul_ps(super.dmin, load_u8x16(block + 336)), x, acc);
  }
};

struct Q6_K {
  struct Super {
    __m512 d;
  };
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p) { return {load_f16x16(p)}; }

  // The integer sc0 * s0 + sc1 * s1 is below 2^24, and so is each product: exact in f32.
  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, const Super& super,
                                     const TokenBlock<T>& x, __m512* acc) {
    __m512i a_sums[T], sums[T];  // of the activations, of the products
    __m512 integers[T];
    set_zero<T>(a_sums);
    set_zero<T>(sums);
    THERMOCLINE_UNROLL
    for (int c = 0; c < 4; ++c) add_chunk<T>(_mm512_set1_epi8(1), x, 4 * c, a_sums);
    add_half<T, 0>(block, x, sums);
    const __m512 scale0 = load_i8x16(block + 384), scale1 = load_i8x16(block + 400);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) integers[t] = _mm512_mul_ps(half_sum(sums[t], a_sums[t]), scale0);
    set_zero<T>(sums);
    add_half<T, 1>(block, x, sums);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512i a_sum = _mm512_sub_epi32(x.sum_of(t), a_sums[t]);
      integers[t] = _mm512_fmadd_ps(half_sum(sums[t], a_sum), scale1, integers[t]);
      acc[t] = _mm512_fmadd_ps(integers[t], _mm512_mul_ps(super.d, x.scale_of(t)), acc[t]);
    }
  }
  // Adds the products of 16 columns: nibbles, low or high, of 4 chunks and their 2 high bits.
  template <int T, int half>
  static THERMOCLINE_INLINE void add_half(const uint8_t* block, const TokenBlock<T>& x,
                                          __m512i* sums) {
    const __m512i nibble = _mm512_set1_epi8(15), bits = _mm512_set1_epi8(0x30);
    const __m512i high = _mm512_loadu_si512(block + 256 + 64 * half);
    const __m512i at_4[4] = {_mm512_slli_epi16(high, 4), _mm512_slli_epi16(high, 2), high,
                             _mm512_srli_epi16(high, 2)};
    THERMOCLINE_UNROLL
    for (int c = 0; c < 4; ++c) {
      __m512i q = _mm512_loadu_si512(block + 64 * c);
      if constexpr (half == 1) q = _mm512_srli_epi16(q, 4);
      q = _mm512_and_si512(q, nibble);
      q = _mm512_ternarylogic_epi32(q, at_4[c], bits, 0xf8);  // q | (at_4 & bits)
      add_chunk<T>(q, x, 16 * half + 4 * c, sums);
    }
  }
  // f32(sum - 32 * a_sum)
  static THERMOCLINE_INLINE __m512 half_sum(__m512i sum, __m512i a_sum) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_slli_epi32(a_sum, 5)));
  }
  static THERMOCLINE_INLINE __m512 load_i8x16(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
};

}  // namespace
}  // namespace thermocline::kernels::avx512
