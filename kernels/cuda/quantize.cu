// Activations to int8, where no other op has done it.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 128;

// Grid: tokens, parts of a row.
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const float* x, int64_t x_stride, int64_t n, DeviceRows out) {
  const int64_t token = blockIdx.x;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kQuad;
  const QuadPlace at = {token, first, first < n};
  float4 values = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (at.inside) values = *reinterpret_cast<const float4*>(x + token * x_stride + first);
  store_quantized(values, at, out);
}

}  // namespace

LaunchError quantize(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                     int64_t n, const DeviceRows& out) {
  if (n_tokens == 0 || n == 0) return 0;
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(n, kThreads * kQuad)));
  return LAUNCH(stream, grid, kThreads, 0, quantize_kernel, x, x_stride, n, out);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
