// The gated activations, and sums.
#pragma once

#include "kernels/cuda/exp.cuh"
#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

__device__ __forceinline__ float relu(float x) {
  return x < 0.0f ? 0.0f : x;  // keeps NaN
}

struct Relu {
  static constexpr int kForm = 0;
  static __device__ __forceinline__ float apply(float gate, float up) {
    return __fmul_rn(relu(gate), up);
  }
};
struct ReluRelu {
  static constexpr int kForm = 1;
  static __device__ __forceinline__ float apply(float gate, float up) {
    return __fmul_rn(relu(gate), relu(up));
  }
};
struct Silu {
  static constexpr int kForm = 2;
  static __device__ __forceinline__ float apply(float gate, float up) {
    return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0f, exp_f32(-gate))), up);
  }
};

// The values before `n` of the quad that begins at `first`.
__device__ __forceinline__ void store_quad(const float* values, int64_t first, int64_t n,
                                           float* out) {
  if (first + kQuad <= n) {
    *reinterpret_cast<float4*>(out + first) =
        make_float4(values[0], values[1], values[2], values[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (first + i < n) out[first + i] = values[i];
  }
}

template <typename Activation>
struct Gated : OfWarps<> {
  struct Call {
    const float *gate, *up;  // [n_tokens, stride]; up null: 1
    int64_t stride;
    const uint8_t* mask;  // [n_tokens, n]
    int64_t n;
    float* out;
    DeviceRows quantized;
  };
  static constexpr int kNumber = op_number(OpFamily::kGated, Activation::kForm);
  static constexpr const char* kName = "gated";

  // unit: a part of a token's row.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int64_t n = call.n;
    const int n_parts = static_cast<int>(div_up(n, kWarpQuads));
    const int64_t token = unit / n_parts;
    const int64_t first = unit % n_parts * kWarpQuads + threadIdx.x % kWarp * kQuad;
    float values[kQuad] = {};
    if (first < n) {
      const int64_t row = token * call.stride;
      const float4 g = *reinterpret_cast<const float4*>(call.gate + row + first);
      const float4 u = call.up == nullptr ? make_float4(1.0f, 1.0f, 1.0f, 1.0f)
                                          : *reinterpret_cast<const float4*>(call.up + row + first);
      const float gates[kQuad] = {g.x, g.y, g.z, g.w}, ups[kQuad] = {u.x, u.y, u.z, u.w};
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        if (first + i >= n) continue;
        if (call.mask != nullptr && call.mask[token * n + first + i] == 0) continue;
        values[i] = Activation::apply(gates[i], ups[i]);
      }
      store_quad(values, first, n, call.out + row);
    }
    if (call.quantized.q == nullptr) return;
    const QuadPlace at = {token, first, first < div_up(n, 32) * 32};
    store_quantized(make_float4(values[0], values[1], values[2], values[3]), at, call.quantized);
  }
};

struct Add : OfWarps<> {
  struct Call {
    const float4 *a, *b;
    int64_t n_quads;
    float4* out;
  };
  static constexpr int kNumber = op_number(OpFamily::kAdd);
  static constexpr const char* kName = "add";

  // unit: a part of the row.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int64_t i = int64_t{unit} * kWarp + threadIdx.x % kWarp;
    if (i >= call.n_quads) return;
    const float4 x = call.a[i], y = call.b[i];
    call.out[i] = make_float4(__fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y), __fadd_rn(x.z, y.z),
                              __fadd_rn(x.w, y.w));
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
