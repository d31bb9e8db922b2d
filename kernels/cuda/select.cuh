// Which rows a step computes, from their scores: one block, so that the list is ascending without
// any atomic operation.
#pragma once

#include "kernels/cuda/op.cuh"
#include "kernels/cuda/selection.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kSelectPart = 32 * kWarp;  // rows of a warp at most: 32 a lane, as bits
constexpr int kSelectInFlight = 8;       // scores that a lane waits for at once

// Fills the mask for rows [begin, end), at most kSelectPart, and adds its ones to *n_ones. Returns
// the lane's bits: i says whether any token chose row begin + 32 * i + lane.
__device__ __forceinline__ unsigned mark(const DeviceSelection& s, int begin, int end,
                                         uint8_t* mask, int* n_ones) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  unsigned bits = 0;
  for (int first = 0; begin + first * kWarp < end; first += kSelectInFlight) {
    for (int64_t t = 0; t < s.n_tokens; ++t) {
      const float threshold = threshold_of(s, t);
      uint8_t* mask_of_token = mask + t * s.n_rows;
      float scores[kSelectInFlight];
      bool is_among[kSelectInFlight];
#pragma unroll
      for (int i = 0; i < kSelectInFlight; ++i) {
        const int row = begin + (first + i) * kWarp + lane;
        if (row >= end) continue;
        scores[i] = score_of(s, t, row);
        is_among[i] = !s.is_among_mask || mask_of_token[row] != 0;
      }
#pragma unroll
      for (int i = 0; i < kSelectInFlight; ++i) {
        const int row = begin + (first + i) * kWarp + lane;
        if (row >= end) continue;
        const bool chosen = is_among[i] && !(scores[i] <= threshold);  // NaNs, too
        mask_of_token[row] = chosen;
        *n_ones += chosen;
        bits |= static_cast<unsigned>(chosen) << (first + i);
      }
    }
  }
  return bits;
}

__device__ __forceinline__ int sum_lanes(int n) {
  for (int apart = kWarp / 2; apart > 0; apart /= 2) n += __shfl_xor_sync(kAllLanes, n, apart);
  return n;
}

// Of the warps before the calling one, and of all; counts [kWarps], each warp's.
struct Sums {
  int before, all;
};
template <int kWarps>
__device__ __forceinline__ Sums sum_counts(const int* counts, int warp) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int sum = lane < kWarps ? counts[lane] : 0;
#pragma unroll
  for (int apart = 1; apart < kWarps; apart *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, sum, apart);
    if (lane >= apart) sum += lower;
  }
  return {__shfl_sync(kAllLanes, sum, warp) - counts[warp],
          __shfl_sync(kAllLanes, sum, kWarps - 1)};
}

template <int kWarps>
struct Select : OfBlocks {
  struct Call {
    DeviceSelection selection;
    int32_t* rows;
    int32_t* n;
    uint8_t* mask;
    uint64_t* totals;
  };
  struct Shared {
    int counts[2][kWarps];  // by turns, so that a round needs one barrier
  };
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kNumber =
      kWarps == kBlockWarps ? op_number(OpFamily::kSelect) : kNotResident;
  static constexpr const char* kName = "select";

  // A round is as many rows as the block's registers can tell of; each warp has a part of it, whose
  // rows begin in the list where those before it end.
  static __device__ __forceinline__ void run(const Call& call, int, Shared* shared) {
    constexpr int kRoundRows = kWarps * kSelectPart;
    const DeviceSelection& s = call.selection;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int n_rows = static_cast<int>(s.n_rows);
    int n_chosen = 0, n_ones = 0, turn = 0;
    for (int round = 0; round < n_rows; round += kRoundRows, turn ^= 1) {
      const int round_end = min(round + kRoundRows, n_rows);
      const int n_part = (round_end - round + kThreads - 1) / kThreads * kWarp;
      const int begin = min(round + warp * n_part, round_end), end = min(begin + n_part, round_end);
      const unsigned bits = mark(s, begin, end, call.mask, &n_ones);
      const int count = sum_lanes(__popc(bits));
      if (lane == 0) shared->counts[turn][warp] = count;
      __syncthreads();
      const Sums sums = sum_counts<kWarps>(shared->counts[turn], warp);
      int32_t* list = call.rows + n_chosen + sums.before;
      for (int i = 0; begin + i * kWarp < end; ++i) {
        const unsigned chosen = __ballot_sync(kAllLanes, bits >> i & 1);
        const int place = __popc(chosen & ((1u << lane) - 1));
        if ((bits >> i & 1) != 0) list[place] = begin + i * kWarp + lane;
        list += __popc(chosen);
      }
      n_chosen += sums.all;
    }
    if (threadIdx.x == 0) *call.n = n_chosen;
    if (call.totals == nullptr) return;
    n_ones = sum_lanes(n_ones);
    if (lane == 0) shared->counts[turn][warp] = n_ones;
    __syncthreads();
    if (threadIdx.x >= kWarp) return;
    n_ones = sum_lanes(lane < kWarps ? shared->counts[turn][lane] : 0);
    if (lane != 0) return;
    call.totals[0] += static_cast<uint64_t>(n_ones);
    call.totals[1] += static_cast<uint64_t>(n_chosen);
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
