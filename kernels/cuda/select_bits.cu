// Which rows others compute, from their scores: a bit for each.
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/selection.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr int kWords = 8;  // of a warp: 32 bytes, which cross the link at once

// Grid: tokens, parts of the rows.
__global__ void __launch_bounds__(kWarps* kWarp)
    select_bits_kernel(DeviceSelection s, uint32_t* bits, int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warp = int64_t{blockIdx.y} * kWarps + threadIdx.x / kWarp;
  const int64_t token = blockIdx.x, first_word = warp * kWords;
  const float threshold = threshold_of(s, token);
  unsigned mine = 0;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const int64_t row = (first_word + i) * kWarp + lane;
    const bool chosen = row < s.n_rows && !(score_of(s, token, row) <= threshold);  // NaNs, too
    const unsigned word = __ballot_sync(kAllLanes, chosen);
    if (lane == i) mine = word;
  }
  const int64_t word = first_word + lane;
  if (lane < kWords && word * kWarp < s.n_rows) bits[token * stride + word] = mine;
}

}  // namespace

LaunchError select_bits(DeviceStream* stream, const DeviceSelection& selection, uint32_t* bits,
                        int64_t stride) {
  if (selection.n_tokens == 0 || selection.n_rows == 0) return 0;
  const dim3 grid(static_cast<unsigned>(selection.n_tokens),
                  static_cast<unsigned>(div_up(selection.n_rows, kWarps * kWords * kWarp)));
  return LAUNCH(stream, grid, kWarps * kWarp, 0, select_bits_kernel, selection, bits, stride);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
