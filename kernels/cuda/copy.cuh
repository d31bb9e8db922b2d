// Rows as they are, mostly to where the host reads them.
#pragma once

#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

struct Copy : OfWarps<> {
  struct Call {
    const float* x;
    int64_t x_stride, n;
    float* out;
    int64_t out_stride;
  };
  static constexpr int kNumber = op_number(OpFamily::kCopy);
  static constexpr const char* kName = "copy";
  static constexpr int64_t kValues = 4 * kWarp;  // of a warp: 16 bytes a lane

  // unit: a part of a token's row.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int n_parts = static_cast<int>(div_up(call.n, kValues));
    const int64_t token = unit / n_parts;
    const int64_t first = unit % n_parts * kValues + threadIdx.x % kWarp * 4;
    if (first >= call.n) return;
    *reinterpret_cast<float4*>(call.out + token * call.out_stride + first) =
        *reinterpret_cast<const float4*>(call.x + token * call.x_stride + first);
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
