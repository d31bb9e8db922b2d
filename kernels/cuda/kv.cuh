// Where a token lies in the KV cache (DeviceKv), and how a warp reads one head of it: through
// shared memory, as the cache has it, to f32. What is computed with it: attend.cu.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

// The row of [n_slots, n_ctx, n_kv_heads]: of device_kv_row(d_head) values, and of a 32nd of that
// many scales.
__device__ __forceinline__ int64_t kv_row(const DeviceKv& kv, const DeviceToken& token, int head) {
  return (token.slot * kv.n_ctx + token.position) * kv.n_kv_heads + head;
}

__device__ __forceinline__ float half_bits_to_float(unsigned bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}
// A signed byte: the lowest bits of a float in [2^23, 2^24) count ones. Cheaper than a conversion.
__device__ __forceinline__ float byte_to_float(unsigned byte_plus_128) {
  return __fsub_rn(__uint_as_float(0x4b000000u | byte_plus_128), 8388608.0f + 128.0f);
}

// A slab is 32 positions x 32 dims of one KV head in shared memory, as the cache has them. Its rows
// have gaps, so that 16-byte accesses of 8 lanes, each in its own row or some in one, meet all 32
// banks.
constexpr int kSlab = 32;

template <DeviceKvType kType>
struct SlabFormat {
  static constexpr bool kQuantized = kType == DeviceKvType::kQ8_0;
  static constexpr int kDataBytes = kQuantized ? kSlab : 2 * kSlab;  // of a row
  static constexpr int kRowBytes = kDataBytes + 16;  // Q8_0: the scale, as f32, behind the data
  static constexpr int kPieces = kDataBytes / 16;    // of a row; also the loads of a lane
};

// Values [dim, dim + 8) of a row.
template <DeviceKvType kType>
__device__ __forceinline__ void read_eight(const uint8_t* slab, int row, int dim, float* values) {
  using Format = SlabFormat<kType>;
  const uint8_t* data = slab + row * Format::kRowBytes;
  if constexpr (Format::kQuantized) {
    const float scale = *reinterpret_cast<const float*>(data + Format::kDataBytes);
    const uint2 bytes = *reinterpret_cast<const uint2*>(data + dim);
    const unsigned words[2] = {bytes.x ^ 0x80808080u, bytes.y ^ 0x80808080u};
#pragma unroll
    for (int i = 0; i < 8; ++i) {  // exact: 8 bits times 11
      values[i] = __fmul_rn(byte_to_float(words[i / 4] >> (8 * (i % 4)) & 0xff), scale);
    }
  } else {
    const uint4 bytes = *reinterpret_cast<const uint4*>(data + 2 * dim);
    const unsigned words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      values[i] = half_bits_to_float(words[i / 2] >> (16 * (i % 2)) & 0xffff);
    }
  }
}

template <DeviceKvType kType>
__device__ __forceinline__ float read_value(const uint8_t* slab, int row, int dim) {
  using Format = SlabFormat<kType>;
  const uint8_t* data = slab + row * Format::kRowBytes;
  if constexpr (Format::kQuantized) {
    const float scale = *reinterpret_cast<const float*>(data + Format::kDataBytes);
    return __fmul_rn(byte_to_float(data[dim] ^ 0x80u), scale);
  } else {
    return half_bits_to_float(reinterpret_cast<const uint16_t*>(data)[dim]);
  }
}

// Slabs of one chunk of 32 positions, which a warp reads one after another; the next two are on
// their way in registers. `ring`, slab % 2, is a constant where the caller's loop is unrolled.
template <DeviceKvType kType>
class SlabStream {
 public:
  using Format = SlabFormat<kType>;
  static constexpr int kAhead = 2;

  // values and scales: k's or v's planes, n_slabs a row. n_positions are read, the first at `row`
  // (kv_row); the slab's rows of others are zeros.
  __device__ __forceinline__ SlabStream(const DeviceKv& kv, int n_slabs, const void* values,
                                        const uint16_t* scales, int64_t row, int n_positions,
                                        uint8_t* slab)
      : n_positions_(n_positions),
        n_left_(n_slabs),
        stride_(kv.n_kv_heads * n_left_ * Format::kDataBytes),
        slab_(slab) {
    const int lane = threadIdx.x % kWarp;
    values_ = static_cast<const uint8_t*>(values) + row * n_left_ * Format::kDataBytes +
              int64_t{lane / Format::kPieces} * stride_ + lane % Format::kPieces * 16;
    if constexpr (Format::kQuantized) {
      scales_ = scales + (row + int64_t{lane} * kv.n_kv_heads) * n_left_;
    }
  }

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int ring = 0; ring < kAhead; ++ring) fetch(ring);
  }
  // The next slab, if there is one.
  __device__ __forceinline__ void fetch(int ring) {
    const int lane = threadIdx.x % kWarp;
    const int n = n_left_ > 0 ? n_positions_ : 0;  // no branch: it would cost registers
#pragma unroll
    for (int i = 0; i < Format::kPieces; ++i) {
      const uint8_t* address = values_ + int64_t{i * kRowsALoad} * stride_;
      pieces_[ring][i] = i * kRowsALoad + lane / Format::kPieces < n
                             ? *reinterpret_cast<const uint4*>(address)
                             : make_uint4(0, 0, 0, 0);
    }
    if constexpr (Format::kQuantized) {
      scale_[ring] = lane < n ? half_bits_to_float(*scales_) : 0.0f;
      ++scales_;
    }
    values_ += Format::kDataBytes;
    --n_left_;
  }
  // Into shared memory, for the whole warp.
  __device__ __forceinline__ void stage(int ring) {
    const int lane = threadIdx.x % kWarp;
    __syncwarp();  // no lane reads what was there before
#pragma unroll
    for (int i = 0; i < Format::kPieces; ++i) {
      const int row = i * kRowsALoad + lane / Format::kPieces;
      uint8_t* at = slab_ + row * Format::kRowBytes + lane % Format::kPieces * 16;
      *reinterpret_cast<uint4*>(at) = pieces_[ring][i];
    }
    if constexpr (Format::kQuantized) {
      uint8_t* at = slab_ + lane * Format::kRowBytes + Format::kDataBytes;
      *reinterpret_cast<float*>(at) = scale_[ring];
    }
    __syncwarp();
  }

 private:
  static constexpr int kRowsALoad = kWarp / Format::kPieces;

  const int n_positions_;
  int n_left_;
  const int stride_;  // bytes from one position to the next
  const uint8_t* values_;
  const uint16_t* scales_ = nullptr;
  uint8_t* const slab_;
  uint4 pieces_[kAhead][Format::kPieces];
  float scale_[kAhead];
};

}  // namespace thermocline::kernels::SIMT_DEVICE
