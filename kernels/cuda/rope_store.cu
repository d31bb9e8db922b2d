// Rotary position embedding of q and k, and k and v into the KV cache. Places in it: kv.cuh.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/kv.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 256;

struct RopeCall {
  float* q;                   // [n_tokens, n_heads, d_head]
  const float *k, *v;         // [n_tokens, n_kv_heads, d_head]
  const float *cos, *sin;     // [n_tokens, n_rot / 2]
  const DeviceToken* tokens;  // [n_tokens]
  int64_t n_rot;
  int32_t n_heads;
  DeviceKv kv;
  int32_t d_row;  // of a head in the cache
};

// ops.h's rope_interleaved.
__device__ __forceinline__ float2 rotate(float2 x, float cos, float sin) {
  return make_float2(__fmaf_rn(x.x, cos, -__fmul_rn(x.y, sin)),
                     __fmaf_rn(x.x, sin, __fmul_rn(x.y, cos)));
}

// The largest magnitude of 16 lanes' pairs, as bits: a NaN beats all, so that it reaches the scale.
__device__ __forceinline__ float largest_magnitude(float2 x) {
  unsigned largest = max(__float_as_uint(x.x) & 0x7fffffffu, __float_as_uint(x.y) & 0x7fffffffu);
  for (int apart = 8; apart > 0; apart /= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, apart));
  }
  return __uint_as_float(largest);
}

// ops.h's quantize: in steps of the scale before that is rounded to f16.
__device__ __forceinline__ unsigned quantized(float x, float scale) {
  if (scale == 0.0f) return 0;
  float steps = __fdiv_rn(x, scale);
  steps = steps < 127.0f ? steps : 127.0f;
  steps = steps > -127.0f ? steps : -127.0f;
  return static_cast<unsigned>(__float2int_rn(steps)) & 0xff;
}

// A thread has a pair; 16 of them side by side have a block of 32 values, the last of which may be
// past the head's.
template <DeviceKvType kType>
__global__ void __launch_bounds__(kThreads) rotate_and_store(RopeCall call) {
  const DeviceKv& kv = call.kv;
  const int64_t token = blockIdx.x;
  const int n_pairs = kv.d_head / 2, row_pairs = call.d_row / 2;
  const int64_t place = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const int pair = static_cast<int>(place % row_pairs);
  int head = static_cast<int>(place / row_pairs);  // of q, then of k, then of v
  const bool is_q = head < call.n_heads;
  if (!is_q) head -= call.n_heads;
  const bool is_k = !is_q && head < kv.n_kv_heads;
  if (!is_q && !is_k) head -= kv.n_kv_heads;
  const bool is_there = head < kv.n_kv_heads || is_q;

  float2 x = make_float2(0, 0);
  float2* const q = reinterpret_cast<float2*>(call.q) + (token * call.n_heads + head) * n_pairs;
  if (is_there && pair < n_pairs) {
    const int64_t row = token * kv.n_kv_heads + head;
    const float* source = is_k ? call.k : call.v;
    x = is_q ? q[pair] : reinterpret_cast<const float2*>(source)[row * n_pairs + pair];
    if ((is_q || is_k) && 2 * pair < call.n_rot) {
      const int64_t at = token * (call.n_rot / 2) + pair;
      x = rotate(x, call.cos[at], call.sin[at]);
    }
  }
  // All lanes of the warp take part, whatever they hold.
  float scale = 0;
  if constexpr (kType == DeviceKvType::kQ8_0) scale = __fdiv_rn(largest_magnitude(x), 127.0f);
  if (!is_there) return;
  if (is_q) {
    if (pair < n_pairs) q[pair] = x;
    return;
  }
  const DeviceToken& at = call.tokens[token];
  if (at.position >= kv.n_ctx) return;
  const int64_t row = kv_row(kv, at, head);
  void* const plane = is_k ? kv.k : kv.v;
  if constexpr (kType == DeviceKvType::kQ8_0) {
    static_cast<uint16_t*>(plane)[row * row_pairs + pair] =
        static_cast<uint16_t>(quantized(x.x, scale) | quantized(x.y, scale) << 8);
    uint16_t* const scales = is_k ? kv.k_scale : kv.v_scale;
    if (pair % 16 == 0) {
      scales[row * (row_pairs / 16) + pair / 16] = __half_as_ushort(__float2half_rn(scale));
    }
  } else {
    static_cast<__half2*>(plane)[row * row_pairs + pair] = __floats2half2_rn(x.x, x.y);
  }
}

}  // namespace

LaunchError rope_store(DeviceStream* stream, float* q, const float* k, const float* v,
                       const float* cos, const float* sin, int64_t n_rot, const DeviceToken* tokens,
                       int64_t n_tokens, int32_t n_heads, const DeviceKv& kv) {
  if (n_tokens == 0) return 0;
  const auto d_row = static_cast<int32_t>(device_kv_row(kv.d_head));
  const RopeCall call = {q, k, v, cos, sin, tokens, n_rot, n_heads, kv, d_row};
  const int64_t n_pairs = (int64_t{n_heads} + 2 * kv.n_kv_heads) * (d_row / 2);
  const dim3 grid(static_cast<unsigned>(n_tokens),
                  static_cast<unsigned>(div_up(n_pairs, kThreads)));
  return kv.type == DeviceKvType::kF16
             ? LAUNCH(stream, grid, kThreads, 0, rotate_and_store<DeviceKvType::kF16>, call)
             : LAUNCH(stream, grid, kThreads, 0, rotate_and_store<DeviceKvType::kQ8_0>, call);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
