// Attention's last step where a context is longer than the cache: adds what others computed of the
// positions that are not in it.
#pragma once

#include "kernels/cuda/exp.cuh"
#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

struct MergeTail : OfWarps<256> {
  struct Call {
    const float* state;           // [n_tokens, n_heads, 2]: max, sum
    const float* tail;            // [n_tokens, tail_stride]: n_heads times max, sum, o [d_head]
    int64_t tail_stride, n_rows;  // n_tokens * n_heads
    int32_t n_heads, d_head;
    float* out;  // [n_tokens, n_heads, d_head]
  };
  static constexpr int kNumber = op_number(OpFamily::kMergeTail);
  static constexpr const char* kName = "merge_tail";

  // unit: 32 pairs of dims. A thread has one of a row. It reads the row's max and sum itself, at
  // the same time: `tail` is at the end of a link, where it is the rounds of reads that cost.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const int n_pairs = call.d_head / 2;
    const int64_t place = int64_t{unit} * kWarp + threadIdx.x % kWarp;
    const int64_t row = place / n_pairs;
    if (row >= call.n_rows) return;
    const int pair = static_cast<int>(place % n_pairs);
    const auto* const from = reinterpret_cast<const float2*>(
        call.tail + row / call.n_heads * call.tail_stride + row % call.n_heads * (2 + call.d_head));
    const float2 tail = __ldcv(from), tail_o = __ldcv(from + 1 + pair);  // tail: max, sum
    const float2 state = reinterpret_cast<const float2*>(call.state)[row];
    if (tail.y == 0.0f) return;

    const float both = fmaxf(state.x, tail.x);
    const float a = __fmul_rn(state.y, exp_f32(__fsub_rn(state.x, both)));
    const float b = exp_f32(__fsub_rn(tail.x, both));
    const float sum = __fmaf_rn(tail.y, b, a);
    float2* const out = reinterpret_cast<float2*>(call.out) + place;
    const float2 o = *out;
    *out = make_float2(__fdiv_rn(__fmaf_rn(tail_o.x, b, __fmul_rn(o.x, a)), sum),
                       __fdiv_rn(__fmaf_rn(tail_o.y, b, __fmul_rn(o.y, a)), sum));
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
