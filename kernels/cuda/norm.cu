// Launches RMS norms.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/norm.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError rms_norm(DeviceStream* stream, const float* x, const float* weight, int64_t n_tokens,
                     int64_t n, float eps, float* out, const DeviceRows& quantized) {
  if (n == 0) return 0;
  return launch_op<RmsNorm>(stream, n_tokens, {x, weight, n, eps, out, quantized});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
