// Launches the merge of a context's tail.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/merge_tail.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

LaunchError merge_tail(DeviceStream* stream, const float* state, const float* tail,
                       int64_t tail_stride, int64_t n_tokens, int32_t n_heads, int32_t d_head,
                       float* out) {
  const int64_t n_rows = n_tokens * n_heads;
  return launch_op<MergeTail>(stream, div_up(n_rows * (d_head / 2), kWarp),
                              {state, tail, tail_stride, n_rows, n_heads, d_head, out});
}

}  // namespace thermocline::kernels::SIMT_DEVICE
