// One struct a quantized type: how a block of 16 rows x 32 columns is multiplied with the int8
// activations of T tokens in AVX2 registers, 8 rows at a time. A further type is a further struct.
// No loops over blocks, groups or tiles (matmul_int8_avx2.cc).
//
// Each struct has Super, what it needs of the super-block's part, load_super(), and add(): it adds
// to acc[t] (8 rows: the lower or upper `half`, 0 or 1) the products of a block and the activations
// of token t, under ops.h's contract. The layout: packed.h.
//
// vpmaddubsw adds two u8 * s8 products into 16 bits and saturates. Weights of at most 63 cannot
// reach that, not even with two instructions' results added: 4 * 63 * 127 = 32004 < 2^15. Q8_0
// multiplies |weight| <= 128 with the activation under the weight's sign: 2 * 128 * 127 = 32512 <
// 2^15.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/unroll.h"
#include "kernels/packed.h"

namespace thermocline::kernels::avx2 {
namespace {

THERMOCLINE_INLINE __m128i load_128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
THERMOCLINE_INLINE __m128i load_64(const uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
THERMOCLINE_INLINE __m256 load_f16x8(const uint8_t* p) { return _mm256_cvtph_ps(load_128(p)); }

// 8 rows of a chunk: 4 values of k each.
THERMOCLINE_INLINE __m256i load_chunk(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// One block of T tokens: token t's values are t * stride after token 0's.
template <int T>
struct TokenBlock {
  const int8_t* q;     // [T][q_stride], the first 32
  const float* scale;  // [T][stride], the first
  const int32_t* sum;  // [T][stride], the first
  int64_t q_stride;
  int64_t stride;

  THERMOCLINE_INLINE __m256i four(int t, int k) const {  // values k..k+3 in every lane
    int32_t bits;
    __builtin_memcpy(&bits, q + t * q_stride + k, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
  THERMOCLINE_INLINE __m256 scale_of(int t) const { return _mm256_set1_ps(scale[t * stride]); }
  THERMOCLINE_INLINE __m256i sum_of(int t) const { return _mm256_set1_epi32(sum[t * stride]); }
};

template <int T>
THERMOCLINE_INLINE void set_zero(__m256i* sums) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) sums[t] = _mm256_setzero_si256();
}

// sums[t] plus, in each lane, the lane's weights (0..63) of k..k+3 and l..l+3 times token t's
// activations there.
template <int T>
THERMOCLINE_INLINE void add_chunks(__m256i at_k, __m256i at_l, const TokenBlock<T>& x, int k, int l,
                                   __m256i* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(at_k, x.four(t, k)),
                                           _mm256_maddubs_epi16(at_l, x.four(t, l)));
    sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
  }
}

// Takes off the zero point, 2^log2, times the sum of the activations.
template <int T>
THERMOCLINE_INLINE void subtract_zero_point(int log2, const TokenBlock<T>& x, __m256i* sums) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    sums[t] = _mm256_sub_epi32(sums[t], _mm256_slli_epi32(x.sum_of(t), log2));
  }
}

// acc[t] += sums[t] * f32(scale * token t's scale), in one rounding after that of the scales.
template <int T>
THERMOCLINE_INLINE void add_scaled(const __m256i* sums, __m256 scale, const TokenBlock<T>& x,
                                   __m256* acc) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    const __m256 s = _mm256_mul_ps(scale, x.scale_of(t));
    acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t]), s, acc[t]);
  }
}

// sums[t] of 4 chunks that hold k = 4c + i in low nibbles and k = 16 + 4c + i in high ones.
template <int T>
THERMOCLINE_INLINE void add_nibbles(const uint8_t* quants, const TokenBlock<T>& x, __m256i* sums) {
  const __m256i low = _mm256_set1_epi8(15);
  THERMOCLINE_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m256i both = load_chunk(quants + 64 * c);
    add_chunks<T>(_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low), x,
                  4 * c, 16 + 4 * c, sums);
  }
}

// acc[t] -= the sum of token t's activations * f32(min * token t's scale), in one rounding.
template <int T>
THERMOCLINE_INLINE void subtract_min(__m256 min, const TokenBlock<T>& x, __m256* acc) {
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) {
    const __m256 sum = _mm256_cvtepi32_ps(x.sum_of(t));
    acc[t] = _mm256_fnmadd_ps(sum, _mm256_mul_ps(min, x.scale_of(t)), acc[t]);
  }
}

THERMOCLINE_INLINE __m256 load_u8x8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_64(p)));
}

struct NoSuper {};

struct Q8_0 {
  using Super = NoSuper;
  static THERMOCLINE_INLINE Super load_super(const uint8_t*, int) { return {}; }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, int half, const Super& super,
                                     const TokenBlock<T>& x, __m256* acc) {
    const __m256i top_bits = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    __m256i sums[T];
    set_zero<T>(sums);
    THERMOCLINE_UNROLL
    for (int c = 0; c < 8; ++c) {
      const __m256i w = _mm256_xor_si256(load_chunk(block + 64 * c + 32 * half), top_bits);
      const __m256i magnitude = _mm256_abs_epi8(w);
      THERMOCLINE_UNROLL
      for (int t = 0; t < T; ++t) {
        const __m256i signed_x = _mm256_sign_epi8(x.four(t, 4 * c), w);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_x);
        sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(pairs, ones));
      }
    }
    add_scaled<T>(sums, load_f16x8(block + 512 + 16 * half), x, acc);
  }
};

struct Q4_0 {
  using Super = NoSuper;
  static THERMOCLINE_INLINE Super load_super(const uint8_t*, int) { return {}; }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, int half, const Super& super,
                                     const TokenBlock<T>& x, __m256* acc) {
    __m256i sums[T];
    set_zero<T>(sums);
    add_nibbles<T>(block + 32 * half, x, sums);
    subtract_zero_point<T>(3, x, sums);
    add_scaled<T>(sums, load_f16x8(block + 256 + 16 * half), x, acc);
  }
};

struct Q4_K {
  struct Super {
    __m256 d, dmin;
  };
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p, int half) {
    return {load_f16x8(p + 16 * half), load_f16x8(p + 32 + 16 * half)};
  }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, int half, const Super& super,
                                     const TokenBlock<T>& x, __m256* acc) {
    __m256i sums[T];
    set_zero<T>(sums);
    add_nibbles<T>(block + 32 * half, x, sums);
    add_scaled<T>(sums, _mm256_mul_ps(super.d, load_u8x8(block + 256 + 8 * half)), x, acc);
    subtract_min<T>(_mm256_mul_ps(super.dmin, load_u8x8(block + 272 + 8 * half)), x, acc);
  }
};

struct Q5_K {
  using Super = Q4_K::Super;
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p, int half) {
    return Q4_K::load_super(p, half);
  }

  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, int half, const Super& super,
                                     const TokenBlock<T>& x, __m256* acc) {
    const __m256i low = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16);
    const __m256i bits = load_chunk(block + 256 + 32 * half);
    const __m256i low_at_4[4] = {_mm256_slli_epi16(bits, 4), _mm256_slli_epi16(bits, 3),
                                 _mm256_slli_epi16(bits, 2), _mm256_slli_epi16(bits, 1)};
    const __m256i high_at_4[4] = {bits, _mm256_srli_epi16(bits, 1), _mm256_srli_epi16(bits, 2),
                                  _mm256_srli_epi16(bits, 3)};
    __m256i sums[T];
    set_zero<T>(sums);
    THERMOCLINE_UNROLL
    for (int c = 0; c < 4; ++c) {
      const __m256i both = load_chunk(block + 64 * c + 32 * half);
      const __m256i first = _mm256_and_si256(both, low);
      const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
      add_chunks<T>(_mm256_or_si256(first, _mm256_and_si256(low_at_4[c], fifth)),
                    _mm256_or_si256(second, _mm256_and_si256(high_at_4[c], fifth)), x, 4 * c,
                    16 + 4 * c, sums);
    }
    add_scaled<T>(sums, _mm256_mul_ps(super.d, load_u8x8(block + 320 + 8 * half)), x, acc);
    subtract_min<T>(_mm256_mul_ps(super.dmin, load_u8x8(block + 336 + 8 * half)), x, acc);
  }
};

struct Q6_K {
  struct Super {
    __m256 d;
  };
  static THERMOCLINE_INLINE Super load_super(const uint8_t* p, int half) {
    return {load_f16x8(p + 16 * half)};
  }

  // The integer sc0 * s0 + sc1 * s1 is below 2^24, and so is each product: exact in f32.
  template <int T>
  static THERMOCLINE_INLINE void add(const uint8_t* block, int half, const Super& super,
                                     const TokenBlock<T>& x, __m256* acc) {
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i a_sums[T], sums[T];  // of the activations, of the products
    __m256 integers[T];
    set_zero<T>(a_sums);
    set_zero<T>(sums);
    add_chunks<T>(ones, ones, x, 0, 4, a_sums);
    add_chunks<T>(ones, ones, x, 8, 12, a_sums);
    add_columns<T, 0>(block + 32 * half, x, sums);
    const __m256 scale0 = load_i8x8(block + 384 + 8 * half);
    const __m256 scale1 = load_i8x8(block + 400 + 8 * half);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) {
      integers[t] = _mm256_mul_ps(without_zero_point(sums[t], a_sums[t]), scale0);
    }
    set_zero<T>(sums);
    add_columns<T, 1>(block + 32 * half, x, sums);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m256i a_sum = _mm256_sub_epi32(x.sum_of(t), a_sums[t]);
      integers[t] = _mm256_fmadd_ps(without_zero_point(sums[t], a_sum), scale1, integers[t]);
      acc[t] = _mm256_fmadd_ps(integers[t], _mm256_mul_ps(super.d, x.scale_of(t)), acc[t]);
    }
  }
  // Adds the products of the first or last 16 columns: nibbles of 4 chunks and their 2 high bits.
  template <int T, int columns>
  static THERMOCLINE_INLINE void add_columns(const uint8_t* block, const TokenBlock<T>& x,
                                             __m256i* sums) {
    const __m256i nibble = _mm256_set1_epi8(15), bits = _mm256_set1_epi8(0x30);
    const __m256i high = load_chunk(block + 256 + 64 * columns);
    const __m256i at_4[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                             _mm256_srli_epi16(high, 2)};
    __m256i q[4];
    THERMOCLINE_UNROLL
    for (int c = 0; c < 4; ++c) {
      q[c] = load_chunk(block + 64 * c);
      if constexpr (columns == 1) q[c] = _mm256_srli_epi16(q[c], 4);
      q[c] = _mm256_or_si256(_mm256_and_si256(q[c], nibble), _mm256_and_si256(at_4[c], bits));
    }
    add_chunks<T>(q[0], q[1], x, 16 * columns, 16 * columns + 4, sums);
    add_chunks<T>(q[2], q[3], x, 16 * columns + 8, 16 * columns + 12, sums);
  }
  static THERMOCLINE_INLINE __m256 without_zero_point(__m256i sum, __m256i a_sum) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_slli_epi32(a_sum, 5)));
  }
  static THERMOCLINE_INLINE __m256 load_i8x8(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_64(p)));
  }
};

}  // namespace
}  // namespace thermocline::kernels::avx2
