// Products of a matrix' rows with few tokens: a decode step is bound by reading the weights, so
// each warp takes two rows, each lane every 32nd block of them, 16 bytes at a time, and every
// token's input is read from near caches. How many tokens a launch has changes nothing in a token's
// sum.
#pragma once

#include "kernels/cuda/matrix_block.cuh"
#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kMatmulRows = 2;  // of a warp

struct MatmulCall {
  DeviceMatrix w;
  RowList list;
  DeviceRows x;
  const float* x_f32;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
};

// Adds a block's term: the integer sum is exact, as on the CPU.
template <TensorType kType>
__device__ __forceinline__ float add_block(const Block& block, const int* x, float x_scale,
                                           int x_sum, float sum) {
  int low = 0, high = 0;  // of k < 16, of k >= 16
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    low = __dp4a(block.q[c], x[c], low);
    high = __dp4a(block.q[4 + c], x[4 + c], high);
  }
  if constexpr (kType == TensorType::kQ6_K) {
    int low_sum = 0;
#pragma unroll
    for (int c = 0; c < 4; ++c) low_sum = __dp4a(0x01010101, x[c], low_sum);
    low = block.scale0 * (low - 32 * low_sum) + block.scale1 * (high - 32 * (x_sum - low_sum));
    high = 0;
  }
  int dot = low + high;
  if constexpr (kType == TensorType::kQ4_0) dot -= 8 * x_sum;
  sum = __fmaf_rn(static_cast<float>(dot), __fmul_rn(block.scale, x_scale), sum);
  if constexpr (kType == TensorType::kQ4_K || kType == TensorType::kQ5_K) {
    sum = __fmaf_rn(static_cast<float>(-x_sum), __fmul_rn(block.min, x_scale), sum);
  }
  return sum;
}

template <TensorType kType, int kTokens>
__device__ __forceinline__ void dot_rows(const MatmulCall& a, const int64_t* rows, int lane,
                                         float (*sums)[kTokens]) {
  const int64_t n_blocks = a.w.n_cols / 32;
  for (int64_t b = lane; b < n_blocks; b += kWarp) {
    Block blocks[kMatmulRows];
#pragma unroll
    for (int r = 0; r < kMatmulRows; ++r) blocks[r] = load_block<kType>(a.w, rows[r], b);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int4* from = reinterpret_cast<const int4*>(a.x.q + t * a.x.stride + 32 * b);
      const int4 x0 = from[0], x1 = from[1];
      const int x[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
      const int64_t at = t * (a.x.stride / 32) + b;
      const float x_scale = a.x.scale[at];
      const int x_sum = a.x.sum[at];
#pragma unroll
      for (int r = 0; r < kMatmulRows; ++r) {
        sums[r][t] = add_block<kType>(blocks[r], x, x_scale, x_sum, sums[r][t]);
      }
    }
  }
}

template <TensorType kType, int kTokens>
__device__ __forceinline__ void dot_float_rows(const MatmulCall& a, const int64_t* rows, int lane,
                                               float (*sums)[kTokens]) {
  constexpr int kValues = kType == TensorType::kF32 ? 4 : 8;  // of 16 bytes
  const int64_t n_parts = a.w.n_cols / kValues;
  for (int64_t part = lane; part < n_parts; part += kWarp) {
    float w[kMatmulRows][kValues];
#pragma unroll
    for (int r = 0; r < kMatmulRows; ++r) {
      const uint4* quants = reinterpret_cast<const uint4*>(a.w.quants);
      unpack_floats<kType>(__ldg(quants + rows[r] * n_parts + part), w[r]);
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float4* x = reinterpret_cast<const float4*>(a.x_f32 + t * a.x_stride + part * kValues);
#pragma unroll
      for (int i = 0; i < kValues / 4; ++i) {
        const float4 four = x[i];
#pragma unroll
        for (int r = 0; r < kMatmulRows; ++r) {
          float sum = sums[r][t];
          sum = __fmaf_rn(w[r][4 * i], four.x, sum);
          sum = __fmaf_rn(w[r][4 * i + 1], four.y, sum);
          sum = __fmaf_rn(w[r][4 * i + 2], four.z, sum);
          sums[r][t] = __fmaf_rn(w[r][4 * i + 3], four.w, sum);
        }
      }
    }
  }
}

template <TensorType kType, int kTokens>
struct Matmul : OfWarps<> {
  using Call = MatmulCall;
  static constexpr int kNumber =
      kTokens == 1 ? op_number(OpFamily::kMatmul, static_cast<int>(kType)) : kNotResident;
  static constexpr const char* kName = "matmul";

  // unit: kMatmulRows rows.
  static __device__ __forceinline__ void run(const Call& a, int unit, Shared*) {
    constexpr int kRows = kMatmulRows;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t first = int64_t{unit} * kRows;
    const int64_t n_rows = a.list.rows == nullptr ? a.w.n_rows : *a.list.n;
    if (first >= n_rows) return;
    int64_t rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {  // past the end: the last one again
      const int64_t i = first + r < n_rows ? first + r : n_rows - 1;
      rows[r] = a.list.rows == nullptr ? i : a.list.rows[i];
    }
    float sums[kRows][kTokens] = {};
    constexpr bool kIsFloat =
        kType == TensorType::kF32 || kType == TensorType::kF16 || kType == TensorType::kBF16;
    if constexpr (kIsFloat) {
      dot_float_rows<kType, kTokens>(a, rows, lane, sums);
    } else {
      dot_rows<kType, kTokens>(a, rows, lane, sums);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float* out = a.out + rows[r];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const float sum = warp_sum(sums[r][t]);
        if (lane == 0 && first + r < n_rows) out[t * a.out_stride] = sum;
      }
    }
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
