// Which rows others compute, from their scores: a bit for each.
#pragma once

#include "kernels/cuda/op.cuh"
#include "kernels/cuda/selection.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

struct SelectBits : OfWarps<> {
  struct Call {
    DeviceSelection selection;
    uint32_t* bits;  // [n_tokens, stride]
    int64_t stride;
  };
  static constexpr int kNumber = op_number(OpFamily::kSelectBits);
  static constexpr const char* kName = "select_bits";
  static constexpr int kWords = 8;  // of a warp: 32 bytes, which cross the link at once

  // unit: a part of a token's rows.
  static __device__ __forceinline__ void run(const Call& call, int unit, Shared*) {
    const DeviceSelection& s = call.selection;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int n_parts = static_cast<int>(div_up(s.n_rows, kWords * kWarp));
    const int64_t token = unit / n_parts, first_word = unit % n_parts * kWords;
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
    if (lane < kWords && word * kWarp < s.n_rows) call.bits[token * call.stride + word] = mine;
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
