// RMS norm: a block for each token, which quantizes what it has made.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kMaxThreads = 1024;

// Of all threads of the block, in each of them; of_warp [32], in shared memory. Called once: there
// is no barrier behind the reads.
__device__ __forceinline__ float block_sum(float x, float* of_warp) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_sum(x);
  if (lane == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? of_warp[lane] : 0.0f);
}

__device__ __forceinline__ float4 scaled(const float4& x, float scale, const float4& weight) {
  return make_float4(
      __fmul_rn(__fmul_rn(x.x, scale), weight.x), __fmul_rn(__fmul_rn(x.y, scale), weight.y),
      __fmul_rn(__fmul_rn(x.z, scale), weight.z), __fmul_rn(__fmul_rn(x.w, scale), weight.w));
}

__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_kernel(const float* x, const float* weight, int64_t n, float eps, float* out,
                    DeviceRows quantized) {
  SHARED(of_warp, float[kWarp]);
  const int64_t token = blockIdx.x, n_quads = n / kQuad;
  const float4* row = reinterpret_cast<const float4*>(x + token * n);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < n_quads; i += blockDim.x) {
    const float4 quad = row[i];
    squares = __fmaf_rn(quad.x, quad.x, squares);
    squares = __fmaf_rn(quad.y, quad.y, squares);
    squares = __fmaf_rn(quad.z, quad.z, squares);
    squares = __fmaf_rn(quad.w, quad.w, squares);
  }
  const float mean = __fdiv_rn(block_sum(squares, of_warp), static_cast<float>(n));
  const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
  // Warps go through the row together, so that all lanes meet where quads are quantized.
  for (int64_t begin = 0; begin < n_quads; begin += blockDim.x) {
    const int64_t i = begin + threadIdx.x;
    const QuadPlace at = {token, i * kQuad, i < n_quads};
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at.inside) {
      quad = scaled(row[i], scale, reinterpret_cast<const float4*>(weight)[i]);
      if (out != nullptr) reinterpret_cast<float4*>(out + token * n)[i] = quad;
    }
    if (quantized.q != nullptr) store_quantized(quad, at, quantized);
  }
}

}  // namespace

LaunchError rms_norm(DeviceStream* stream, const float* x, const float* weight, int64_t n_tokens,
                     int64_t n, float eps, float* out, const DeviceRows& quantized) {
  if (n_tokens == 0 || n == 0) return 0;
  const int64_t n_threads = div_up(n / kQuad, kWarp) * kWarp;  // of one round
  const auto block = static_cast<unsigned>(n_threads < kMaxThreads ? n_threads : kMaxThreads);
  return LAUNCH(stream, static_cast<unsigned>(n_tokens), block, 0, rms_norm_kernel, x, weight, n,
                eps, out, quantized);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
