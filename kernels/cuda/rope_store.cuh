// Rotary position embedding of q and k, and k and v into the KV cache. Places in it: kv.cuh.
#pragma once

#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

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

// Warps that a token's heads of q, k and v take, a pair of values a lane.
__host__ __device__ constexpr int rope_parts(int n_heads, int n_kv_heads, int d_row) {
  return static_cast<int>(div_up((n_heads + 2 * n_kv_heads) * (d_row / 2), kWarp));
}

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

template <DeviceKvType kType>
struct RopeStore : OfWarps<256> {
  using Call = RopeCall;
  static constexpr int kNumber = op_number(OpFamily::kRopeStore, static_cast<int>(kType));
  static constexpr const char* kName = "rope_store";

  // unit: a part of a token's heads. A thread has a pair; 16 of them side by side have a block of
  // 32 values, the last of which may be past the head's.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const DeviceKv& kv = call.kv;
    const int n_pairs = kv.d_head / 2, row_pairs = call.d_row / 2;
    const int n_parts = rope_parts(call.n_heads, kv.n_kv_heads, call.d_row);
    const int64_t token = unit / n_parts;
    const int place = unit % n_parts * kWarp + threadIdx.x % kWarp;
    const int pair = place % row_pairs;
    int head = place / row_pairs;  // of q, then of k, then of v
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
};

}  // namespace thermocline::kernels::SIMT_DEVICE
