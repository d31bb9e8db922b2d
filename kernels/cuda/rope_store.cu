// Launches RoPE and the store in the KV cache.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError rope_store(DeviceStream* stream, float* q, const float* k, const float* v,
                       const float* cos, const float* sin, int64_t n_rot, const DeviceToken* tokens,
                       int64_t n_tokens, int32_t n_heads, const DeviceKv& kv) {
  const auto d_row = static_cast<int32_t>(device_kv_row(kv.d_head));
  const RopeCall call = {q, k, v, cos, sin, tokens, n_rot, n_heads, kv, d_row};
  const int64_t n_units = n_tokens * rope_parts(n_heads, kv.n_kv_heads, d_row);
  return kv.type == DeviceKvType::kF16
             ? launch_op<RopeStore<DeviceKvType::kF16>>(stream, n_units, call)
             : launch_op<RopeStore<DeviceKvType::kQ8_0>>(stream, n_units, call);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
