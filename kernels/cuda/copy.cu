// Launches copies of rows.
#include "kernels/cuda/copy.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError copy(DeviceStream* stream, const float* x, int64_t x_stride, int64_t n_tokens,
                 int64_t n, float* out, int64_t out_stride) {
  return launch_op<Copy>(stream, n_tokens * div_up(n, Copy::kValues),
                         {x, x_stride, n, out, out_stride});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
