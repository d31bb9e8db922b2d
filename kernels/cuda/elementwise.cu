// Launches gated activations and sums.
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

template <typename Activation>
LaunchError launch_gated(DeviceStream* stream, const float* gate, const float* up, int64_t stride,
                         const uint8_t* mask, int64_t n_tokens, int64_t n, float* out,
                         const DeviceRows& quantized) {
  return launch_op<Gated<Activation>>(stream, n_tokens * div_up(n, kWarpQuads),
                                      {gate, up, stride, mask, n, out, quantized});
}

}  // namespace

LaunchError add(DeviceStream* stream, const float* a, const float* b, int64_t n, float* out) {
  const int64_t n_quads = n / kQuad;
  return launch_op<Add>(stream, div_up(n_quads, kWarp),
                        {reinterpret_cast<const float4*>(a), reinterpret_cast<const float4*>(b),
                         n_quads, reinterpret_cast<float4*>(out)});
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
