// Launches exchanges.
#include "kernels/cuda/exchange.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError exchange(DeviceStream* stream, const ExchangeMemory& memory, const DeviceStep* step,
                     uint32_t number, const float* partial, float* h, int64_t n, uint32_t* state,
                     int64_t* times) {
  return launch_op<ExchangeOp>(
      stream, 1,
      {memory, step, number, reinterpret_cast<const float4*>(partial), reinterpret_cast<float4*>(h),
       static_cast<int>(n / 4), state, times});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
