// Activations to int8 while a warp holds them: what each op that makes activations ends with; and
// as an op of its own, where none has done it. The CPU's bits (kernels/reference/quantize.cc).
#pragma once

#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kQuad = 4;  // values of a lane: 8 lanes hold a block of 32

constexpr int kWarpQuads = kWarp * kQuad;  // values of a warp

// Where the calling lane's quad of a row begins, and whether there is one. A warp's lanes hold
// neighbouring quads, lane 0 the first of a block.
struct QuadPlace {
  int64_t token, first;
  bool inside;
};

// All lanes of the warp call it; those that are not inside bring any values.
__device__ __forceinline__ void store_quantized(const float4& x, const QuadPlace& at,
                                                const DeviceRows& out) {
  const float values[kQuad] = {x.x, x.y, x.z, x.w};
  // The largest magnitude as the largest bit pattern: a NaN beats all.
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    largest = max(largest, __float_as_uint(values[i]) & 0x7fffffffu);
  }
#pragma unroll
  for (int apart = 1; apart < 8; apart *= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, apart));
  }
  const float scale = __fdiv_rn(__uint_as_float(largest), 127.0f);
  int sum = 0;
  unsigned packed = 0;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    float steps = 0.0f;
    if (scale != 0.0f) {  // also 0 where amax / 127 is too small for an f32
      steps = __fdiv_rn(values[i], scale);
      steps = steps < 127.0f ? steps : 127.0f;  // NaN too
      steps = steps > -127.0f ? steps : -127.0f;
    }
    const int q = __float2int_rn(steps);
    sum += q;
    packed |= (static_cast<unsigned>(q) & 0xffu) << (8 * i);
  }
#pragma unroll
  for (int apart = 1; apart < 8; apart *= 2) sum += __shfl_xor_sync(kAllLanes, sum, apart);
  if (!at.inside) return;
  const int64_t index = at.token * out.stride + at.first;
  reinterpret_cast<unsigned*>(out.q)[index / kQuad] = packed;
  if (at.first % 32 == 0) {
    out.scale[index / 32] = scale;
    out.sum[index / 32] = sum;
  }
}

struct Quantize : OfWarps<> {
  struct Call {
    const float* x;  // [n_tokens, stride]
    int64_t stride, n;
    DeviceRows out;
  };
  static constexpr int kNumber = op_number(OpFamily::kQuantize);
  static constexpr const char* kName = "quantize";

  // unit: a part of a token's row.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int n_parts = static_cast<int>(div_up(call.n, kWarpQuads)), token = unit / n_parts;
    const int64_t first = unit % n_parts * kWarpQuads + threadIdx.x % kWarp * kQuad;
    const QuadPlace at = {token, first, first < call.n};
    float4 values = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at.inside) {
      values = *reinterpret_cast<const float4*>(call.x + token * call.stride + first);
    }
    store_quantized(values, at, call.out);
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
