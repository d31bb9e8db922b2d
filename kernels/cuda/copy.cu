// Rows as they are, mostly to where the host reads them.
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 128;
constexpr int kValues = 4;  // of a thread: 16 bytes

// Grid: tokens, parts of a row.
__global__ void __launch_bounds__(kThreads)
    copy_kernel(const float* x, int64_t x_stride, int64_t n, float* out, int64_t out_stride) {
  const int64_t token = blockIdx.x;
  const int64_t first = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kValues;
  if (first >= n) return;
  *reinterpret_cast<float4*>(out + token * out_stride + first) =
      *reinterpret_cast<const float4*>(x + token * x_stride + first);
}

}  // namespace

LaunchError copy(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                 int64_t n, float* out, int64_t out_stride) {
  if (n_tokens == 0 || n == 0) return 0;
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(n, kThreads * kValues)));
  return LAUNCH(stream, grid, kThreads, 0, copy_kernel, x, x_stride, n, out, out_stride);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
