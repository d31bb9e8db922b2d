// 8 columns of one neuron's row, as a thread reads and dequantizes them: the layout of neurons.h,
// the values of ggml's dequantization to the bit. No sums (add_neurons.cu).
#pragma once

#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kOctet = 8;

template <TensorType kType>
struct OctetFormat {
  static constexpr TensorType type = kType;
  static constexpr bool kIsFloat =
      kType == TensorType::kF32 || kType == TensorType::kF16 || kType == TensorType::kBF16;
  static constexpr int kBits = kType == TensorType::kF32    ? 32
                               : kIsFloat                   ? 16
                               : kType == TensorType::kQ8_0 ? 8
                                                            : 4;  // but the high ones
  static constexpr int kHighBits = kType == TensorType::kQ5_K   ? 1
                                   : kType == TensorType::kQ6_K ? 2
                                                                : 0;
  static constexpr bool kHasMin = kType == TensorType::kQ4_K || kType == TensorType::kQ5_K;
  static constexpr bool kHasSub = kHasMin || kType == TensorType::kQ6_K;
  static constexpr int kZero = kType == TensorType::kQ8_0   ? 128
                               : kType == TensorType::kQ6_K ? 32
                               : kType == TensorType::kQ4_0 ? 8
                                                            : 0;
  static constexpr int kPlaneBytes = kHasMin ? 6 : kHasSub ? 4 : 2;      // of a column
  static constexpr int kSharing = kType == TensorType::kQ6_K ? 16 : 32;  // neurons of one scale
};

// As it lies in memory; what a format lacks is never set.
template <typename Format>
struct RawOctet {
  unsigned quants[Format::kBits / 4];  // 8 * kBits bits
  unsigned high;
  unsigned d[4];  // f16; where there are no planes one, of all columns
  unsigned dmin[4];
  unsigned sub[2], min[2];  // a byte a column
};

template <int kWords>
__device__ __forceinline__ void load_words(const uint8_t* from, unsigned* words) {
  if constexpr (kWords == 1) {
    words[0] = __ldg(reinterpret_cast<const unsigned*>(from));
  } else if constexpr (kWords == 2) {
    const uint2 two = __ldg(reinterpret_cast<const uint2*>(from));
    words[0] = two.x;
    words[1] = two.y;
  } else {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 four = __ldg(reinterpret_cast<const uint4*>(from) + i / 4);
      words[i] = four.x;
      words[i + 1] = four.y;
      words[i + 2] = four.z;
      words[i + 3] = four.w;
    }
  }
}

// The quants of columns [col, col + 8), col a multiple of 8.
template <typename Format>
__device__ __forceinline__ void load_quants(const DeviceNeurons& w, int64_t row, int64_t col,
                                            RawOctet<Format>* octet) {
  const int64_t at = row * w.n_cols + col;
  load_words<Format::kBits / 4>(w.quants + at * Format::kBits / 8, octet->quants);
  if constexpr (Format::kHighBits == 1) octet->high = __ldg(w.high + at / 8);
  if constexpr (Format::kHighBits == 2) {
    octet->high = __ldg(reinterpret_cast<const unsigned short*>(w.high) + at / 8);
  }
}

// kHasPlanes: stock ffn_down in a quantized type. place: 32 * block + place in it, there.
template <typename Format, bool kHasPlanes>
__device__ __forceinline__ void load_scales(const DeviceNeurons& w, int64_t row, int place,
                                            int64_t col, RawOctet<Format>* octet) {
  const int64_t n = w.n_cols;
  if constexpr (!kHasPlanes) {
    const auto* scales = reinterpret_cast<const unsigned short*>(w.scales);
    octet->d[0] = __ldg(scales + row * (n / 32) + col / 32);
    return;
  }
  const uint8_t* plane = w.scales + place / 32 * (n * Format::kPlaneBytes);
  if constexpr (Format::kHasMin) {
    load_words<2>(plane + col, octet->sub);
    load_words<2>(plane + n + col, octet->min);
    load_words<4>(plane + 2 * n + 2 * col, octet->d);
    load_words<4>(plane + 4 * n + 2 * col, octet->dmin);
  } else if constexpr (Format::kHasSub) {
    load_words<2>(plane + place % 32 / 16 * n + col, octet->sub);
    load_words<4>(plane + 2 * n + 2 * col, octet->d);
  } else {
    load_words<4>(plane + 2 * col, octet->d);
  }
}

__device__ __forceinline__ float half_at(const unsigned* words, int i) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(words[i / 2] >> 16 * (i % 2))));
}

// Byte i of a word, less `zero`: 2^23 and the byte as its last bits make a float at once.
__device__ __forceinline__ float byte_at(unsigned word, int i, int zero) {
  const unsigned bits = __byte_perm(word, 0x4b000000u, 0x7540u | static_cast<unsigned>(i));
  return __fsub_rn(__uint_as_float(bits), static_cast<float>(0x800000 + zero));
}

// What columns are multiplied with, and what is taken off.
struct OctetScales {
  float scale[kOctet], min[kOctet];
};

template <typename Format, bool kHasPlanes>
__device__ __forceinline__ void unpack_scales(const RawOctet<Format>& octet, OctetScales* scales) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    const float d = half_at(octet.d, kHasPlanes ? i : 0);
    scales->scale[i] = d;
    if constexpr (Format::kHasMin) {  // products of 11 and 6 bits: exact
      scales->scale[i] = __fmul_rn(d, byte_at(octet.sub[i / 4], i % 4, 0));
      scales->min[i] = __fmul_rn(half_at(octet.dmin, i), byte_at(octet.min[i / 4], i % 4, 0));
    } else if constexpr (Format::kHasSub) {  // i8
      scales->scale[i] = __fmul_rn(d, byte_at(octet.sub[i / 4] ^ 0x80808080u, i % 4, 128));
    }
  }
}

// The high bits of columns 0, 2, 4, 6 (of 1, 3, 5, 7, if they are shifted down by one column), each
// above the nibble of its byte.
template <int kBits>
__device__ __forceinline__ unsigned spread_high(unsigned high) {
  constexpr unsigned kMask = (1u << kBits) - 1;
  unsigned spread = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) spread |= (high >> 2 * kBits * i & kMask) << (8 * i + 4);
  return spread;
}

// The weights; a product of scale and quant rounds in Q6_K alone, so the difference rounds once.
template <typename Format>
__device__ __forceinline__ void unpack_quants(const RawOctet<Format>& octet,
                                              const OctetScales& scales, float* weights) {
  unsigned words[2];  // Q8_0: columns 0..3, 4..7; else the even ones, the odd ones
  if constexpr (Format::kBits == 8) {
    words[0] = octet.quants[0] ^ 0x80808080u;
    words[1] = octet.quants[1] ^ 0x80808080u;
  } else {
    words[0] = octet.quants[0] & 0x0f0f0f0fu;
    words[1] = octet.quants[0] >> 4 & 0x0f0f0f0fu;
  }
  if constexpr (Format::kHighBits > 0) {
    words[0] |= spread_high<Format::kHighBits>(octet.high);
    words[1] |= spread_high<Format::kHighBits>(octet.high >> Format::kHighBits);
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    const float quant = Format::kBits == 8 ? byte_at(words[i / 4], i % 4, Format::kZero)
                                           : byte_at(words[i % 2], i / 2, Format::kZero);
    weights[i] = Format::kHasMin ? __fmaf_rn(scales.scale[i], quant, -scales.min[i])
                                 : __fmul_rn(scales.scale[i], quant);
  }
}

template <typename Format>
__device__ __forceinline__ void unpack_floats(const RawOctet<Format>& octet, float* weights) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if constexpr (Format::type == TensorType::kF32) {
      weights[i] = __uint_as_float(octet.quants[i]);
    } else if constexpr (Format::type == TensorType::kF16) {
      weights[i] = half_at(octet.quants, i);
    } else {
      weights[i] = __uint_as_float(octet.quants[i / 2] >> 16 * (i % 2) << 16);
    }
  }
}

}  // namespace thermocline::kernels::SIMT_DEVICE
