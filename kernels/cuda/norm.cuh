// RMS norm: a block for each token, which quantizes what it has made.
#pragma once

#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

struct RmsNorm : OfBlocks {
  struct Call {
    const float *x, *weight;
    int64_t n;
    float eps;
    float* out;
    DeviceRows quantized;
  };
  struct Shared {
    float of_warp[kBlockWarps];
  };
  static constexpr int kNumber = op_number(OpFamily::kNorm);
  static constexpr const char* kName = "rms_norm";

  // unit: a token.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared* shared) {
    const int64_t n_quads = call.n / kQuad;
    const float4* row = reinterpret_cast<const float4*>(call.x + unit * call.n);
    float squares = 0.0f;
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n_quads; i += kThreads) {
      const float4 quad = row[i];
      squares = __fmaf_rn(quad.x, quad.x, squares);
      squares = __fmaf_rn(quad.y, quad.y, squares);
      squares = __fmaf_rn(quad.z, quad.z, squares);
      squares = __fmaf_rn(quad.w, quad.w, squares);
    }
    const float mean = __fdiv_rn(block_sum(squares, shared->of_warp), static_cast<float>(call.n));
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, call.eps)));
    // Warps go through the row together, so that all lanes meet where quads are quantized.
#pragma unroll 4
    for (int64_t begin = 0; begin < n_quads; begin += kThreads) {
      const int64_t i = begin + threadIdx.x;
      const QuadPlace at = {unit, i * kQuad, i < n_quads};
      float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (at.inside) {
        quad = scaled(row[i], scale, reinterpret_cast<const float4*>(call.weight)[i]);
        if (call.out != nullptr) reinterpret_cast<float4*>(call.out + unit * call.n)[i] = quad;
      }
      if (call.quantized.q != nullptr) store_quantized(quad, at, call.quantized);
    }
  }

 private:
  // Of all threads of the block, in each of them. Called once: there is no barrier behind the
  // reads.
  static __device__ __forceinline__ float block_sum(float x, float* of_warp) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    x = warp_sum(x);
    if (lane == 0) of_warp[threadIdx.x / kWarp] = x;
    __syncthreads();
    return warp_sum(lane < kBlockWarps ? of_warp[lane] : 0.0f);
  }
  static __device__ __forceinline__ float4 scaled(const float4& x, float scale,
                                                  const float4& weight) {
    return make_float4(
        __fmul_rn(__fmul_rn(x.x, scale), weight.x), __fmul_rn(__fmul_rn(x.y, scale), weight.y),
        __fmul_rn(__fmul_rn(x.z, scale), weight.z), __fmul_rn(__fmul_rn(x.w, scale), weight.w));
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
