// The time at which the stream is here, for traces.
#pragma once

#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

struct Stamp : OfWarps<kWarp> {
  struct Call {
    int64_t* ns;
  };
  static constexpr int kNumber = op_number(OpFamily::kStamp);
  static constexpr const char* kName = "stamp";

  static __device__ __forceinline__ void run(const Call& call, int, Shared*) {
    if (threadIdx.x % kWarp == 0) *call.ns = simt::now_ns();
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
