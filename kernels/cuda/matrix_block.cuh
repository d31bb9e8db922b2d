// A block of 32 columns of a matrix' row, or 16 bytes of a float one, as a thread reads and unpacks
// them: the layout of matrix.h. No sums (matmul.cu).
#pragma once

#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

__device__ __forceinline__ float half_bits(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits & 0xffff)));
}

// What one lane takes of a row: a block's quants as four or eight dwords of signed bytes, in the
// order of k, and what its integer sum is multiplied with.
struct Block {
  int q[8];
  float scale, min;    // min: where the type has one
  int scale0, scale1;  // Q6_K: of k < 16, of k >= 16
};

__device__ __forceinline__ void unpack_nibbles(const uint4& packed, int* q) {
  const unsigned dwords[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    q[c] = static_cast<int>(dwords[c] & 0x0f0f0f0fu);
    q[4 + c] = static_cast<int>(dwords[c] >> 4 & 0x0f0f0f0fu);
  }
}

// d, dmin and the 6-bit scale and minimum of sub-block `sub`, as the file packs them (matrix.h).
__device__ __forceinline__ void unpack_header(const uint4& header, int sub, Block* block) {
  const int shift = 8 * (sub & 3);
  const unsigned a = header.y >> shift, b = header.z >> shift, c = header.w >> shift;
  unsigned scale = a & 63, min = b & 63;
  if (sub >= 4) {
    scale = (c & 15) | (a >> 6 & 3) << 4;
    min = (c >> 4 & 15) | (b >> 6 & 3) << 4;
  }
  block->scale = __fmul_rn(half_bits(header.x), static_cast<float>(scale));
  block->min = __fmul_rn(half_bits(header.x >> 16), static_cast<float>(min));
}

template <TensorType kType>
__device__ __forceinline__ Block load_block(const DeviceMatrix& w, int64_t row, int64_t b) {
  const int64_t n_blocks = w.n_cols / 32, at = row * n_blocks + b;
  Block block;
  if constexpr (kType == TensorType::kQ8_0) {
    const uint4* quants = reinterpret_cast<const uint4*>(w.quants) + 2 * at;
    const uint4 low = __ldg(quants), high = __ldg(quants + 1);
    const unsigned dwords[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int c = 0; c < 8; ++c) block.q[c] = static_cast<int>(dwords[c]);
  } else {
    unpack_nibbles(__ldg(reinterpret_cast<const uint4*>(w.quants) + at), block.q);
  }
  if constexpr (kType == TensorType::kQ8_0 || kType == TensorType::kQ4_0) {
    block.scale = half_bits(__ldg(reinterpret_cast<const unsigned short*>(w.scales) + at));
    return block;
  }
  const int64_t n_supers = (w.phase + n_blocks + 7) / 8;
  const int64_t super = row * n_supers + (w.phase + b) / 8;
  const int sub = static_cast<int>((w.phase + b) % 8);
  if constexpr (kType == TensorType::kQ5_K) {
    const unsigned fifth = __ldg(reinterpret_cast<const unsigned*>(w.high) + at);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      block.q[c] |= static_cast<int>((fifth >> c & 0x01010101u) << 4);
    }
  }
  if constexpr (kType == TensorType::kQ6_K) {
    const uint2 high = __ldg(reinterpret_cast<const uint2*>(w.high) + at);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      block.q[c] |= static_cast<int>((high.x >> 2 * c & 0x03030303u) << 4);
      block.q[4 + c] |= static_cast<int>((high.y >> 2 * c & 0x03030303u) << 4);
    }
    const unsigned scales =
        __ldg(reinterpret_cast<const unsigned short*>(w.scales) + super * 8 + sub);
    block.scale0 = static_cast<signed char>(scales & 0xff);
    block.scale1 = static_cast<signed char>(scales >> 8);
    block.scale = half_bits(__ldg(reinterpret_cast<const unsigned short*>(w.d) + super));
  } else {
    unpack_header(__ldg(reinterpret_cast<const uint4*>(w.scales) + super), sub, &block);
  }
  return block;
}

// 16 bytes of a row as floats.
template <TensorType kType>
__device__ __forceinline__ void unpack_floats(const uint4& packed, float* values) {
  const unsigned dwords[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kType == TensorType::kF32) {
      values[i] = __uint_as_float(dwords[i]);
    } else if constexpr (kType == TensorType::kF16) {
      values[2 * i] = half_bits(dwords[i]);
      values[2 * i + 1] = half_bits(dwords[i] >> 16);
    } else {
      values[2 * i] = __uint_as_float(dwords[i] << 16);
      values[2 * i + 1] = __uint_as_float(dwords[i] & 0xffff0000u);
    }
  }
}

}  // namespace thermocline::kernels::SIMT_DEVICE
