// The gated activations, and sums.
#include "kernels/cuda/exp.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/quantize.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ float relu(float x) {
  return x < 0.0f ? 0.0f : x;  // keeps NaN
}

struct Relu {
  static __device__ __forceinline__ float apply(float gate, float up) {
    return __fmul_rn(relu(gate), up);
  }
};
struct ReluRelu {
  static __device__ __forceinline__ float apply(float gate, float up) {
    return __fmul_rn(relu(gate), relu(up));
  }
};
struct Silu {
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

// Grid: tokens, parts of a row.
template <typename Activation>
__global__ void __launch_bounds__(kThreads)
    gated_kernel(const float* gate, const float* up, int64_t stride, const uint8_t* mask, int64_t n,
                 float* out, DeviceRows quantized) {
  const int64_t token = blockIdx.x;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kQuad;
  float values[kQuad] = {};
  if (first < n) {
    const int64_t row = token * stride;
    const float4 g = *reinterpret_cast<const float4*>(gate + row + first);
    const float4 u = up == nullptr ? make_float4(1.0f, 1.0f, 1.0f, 1.0f)
                                   : *reinterpret_cast<const float4*>(up + row + first);
    const float gates[kQuad] = {g.x, g.y, g.z, g.w}, ups[kQuad] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (first + i >= n || (mask != nullptr && mask[token * n + first + i] == 0)) continue;
      values[i] = Activation::apply(gates[i], ups[i]);
    }
    store_quad(values, first, n, out + row);
  }
  if (quantized.q == nullptr) return;
  const QuadPlace at = {token, first, first < div_up(n, 32) * 32};
  store_quantized(make_float4(values[0], values[1], values[2], values[3]), at, quantized);
}

template <typename Activation>
LaunchError launch_gated(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                         const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                         const DeviceRows& quantized) {
  if (n_tokens == 0 || n == 0) return 0;
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(n, kThreads * kQuad)));
  return LAUNCH(stream, grid, kThreads, 0, gated_kernel<Activation>, gate, up, stride, mask, n, out,
                quantized);
}

__global__ void __launch_bounds__(kThreads)
    add_kernel(const float4* a, const float4* b, int64_t n_quads, float4* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n_quads) return;
  const float4 x = a[i], y = b[i];
  out[i] = make_float4(__fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y), __fadd_rn(x.z, y.z),
                       __fadd_rn(x.w, y.w));
}

}  // namespace

LaunchError add(DeviceStream* stream, const float* a, const float* b, int64_t n, float* out) {
  if (n == 0) return 0;
  return LAUNCH(stream, static_cast<unsigned>(div_up(n, kThreads * kQuad)), kThreads, 0, add_kernel,
                reinterpret_cast<const float4*>(a), reinterpret_cast<const float4*>(b), n / kQuad,
                reinterpret_cast<float4*>(out));
}

LaunchError relu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                     const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                     const DeviceRows& quantized) {
  return launch_gated<Relu>(stream, gate, up, stride, mask, n_tokens, n, out, quantized);
}

LaunchError silu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                     const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                     const DeviceRows& quantized) {
  return launch_gated<Silu>(stream, gate, up, stride, mask, n_tokens, n, out, quantized);
}

LaunchError relu_relu_mul(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                          const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                          const DeviceRows& quantized) {
  return launch_gated<ReluRelu>(stream, gate, up, stride, mask, n_tokens, n, out, quantized);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
