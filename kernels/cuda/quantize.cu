// Launches quantization.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError quantize(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                     int64_t n, const DeviceRows& out) {
  return launch_op<Quantize>(stream, n_tokens * div_up(n, kWarpQuads), {x, x_stride, n, out});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
