// The time at which the stream is here, for traces.
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

__global__ void stamp_kernel(int64_t* ns) { *ns = simt::now_ns(); }

}  // namespace

LaunchError stamp(DeviceStream* stream, int64_t* ns) {
  return LAUNCH(stream, dim3(1), dim3(1), 0, stamp_kernel, ns);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
