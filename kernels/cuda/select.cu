// Which rows a step computes, from their scores: one block, so that the list is ascending without
// any atomic operation.
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kWarps = 32;
constexpr int kPartRows = 32 * kWarp;  // of a warp at most: 32 a lane, as bits
constexpr int kRoundRows = kWarps * kPartRows;
constexpr int kInFlight = 8;  // scores that a lane waits for at once

struct Selection {
  const float* scores;  // [n_tokens, stride]
  int64_t stride;
  const float* bias;
  float threshold;
  int64_t n_tokens;
  int64_t n_rows;
  uint8_t* mask;  // [n_tokens, n_rows]
};

// Fills the mask for rows [begin, end), at most kPartRows. Returns the lane's bits: i says whether
// any token chose row begin + 32 * i + lane.
__device__ __forceinline__ unsigned mark(const Selection& s, int begin, int end) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  unsigned bits = 0;
  for (int first = 0; begin + first * kWarp < end; first += kInFlight) {
    for (int64_t t = 0; t < s.n_tokens; ++t) {
      float scores[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int row = begin + (first + i) * kWarp + lane;
        if (row >= end) continue;
        scores[i] = s.scores[t * s.stride + row];
        if (s.bias != nullptr) scores[i] = __fadd_rn(scores[i], s.bias[row]);
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int row = begin + (first + i) * kWarp + lane;
        if (row >= end) continue;
        const bool chosen = !(scores[i] <= s.threshold);  // a NaN too
        s.mask[t * s.n_rows + row] = chosen;
        bits |= static_cast<unsigned>(chosen) << (first + i);
      }
    }
  }
  return bits;
}

// Of the warps before the calling one, and of all; counts [kWarps], each warp's.
struct Sums {
  int before, all;
};
__device__ __forceinline__ Sums sum_counts(const int* counts, int warp) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int sum = counts[lane];
  for (int apart = 1; apart < kWarps; apart *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, sum, apart);
    if (lane >= apart) sum += lower;
  }
  return {__shfl_sync(kAllLanes, sum, warp) - counts[warp],
          __shfl_sync(kAllLanes, sum, kWarps - 1)};
}

// A round is as many rows as the block's registers can tell of; each warp has a part of it, whose
// rows begin in the list where those before it end.
__global__ void __launch_bounds__(kWarps* kWarp, 1)
    select_kernel(Selection s, int32_t* rows, int32_t* n) {
  SHARED(counts, int[2][kWarps]);  // by turns, so that a round needs one barrier
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int n_rows = static_cast<int>(s.n_rows);
  int n_chosen = 0, turn = 0;
  for (int round = 0; round < n_rows; round += kRoundRows, turn ^= 1) {
    const int round_end = min(round + kRoundRows, n_rows);
    const int n_part = (round_end - round + kWarps * kWarp - 1) / (kWarps * kWarp) * kWarp;
    const int begin = min(round + warp * n_part, round_end), end = min(begin + n_part, round_end);
    const unsigned bits = mark(s, begin, end);
    int count = __popc(bits);
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      count += __shfl_xor_sync(kAllLanes, count, apart);
    }
    if (lane == 0) counts[turn][warp] = count;
    __syncthreads();
    const Sums sums = sum_counts(counts[turn], warp);
    int32_t* list = rows + n_chosen + sums.before;
    for (int i = 0; begin + i * kWarp < end; ++i) {
      const unsigned chosen = __ballot_sync(kAllLanes, bits >> i & 1);
      const int place = __popc(chosen & ((1u << lane) - 1));
      if ((bits >> i & 1) != 0) list[place] = begin + i * kWarp + lane;
      list += __popc(chosen);
    }
    n_chosen += sums.all;
  }
  if (threadIdx.x == 0) *n = n_chosen;
}

}  // namespace

LaunchError select(DeviceStream* stream, const float* scores, int64_t stride, const float* bias,
                   float threshold, int64_t n_tokens, int64_t n_rows, int32_t* rows, int32_t* n,
                   uint8_t* mask) {
  const Selection selection = {scores, stride, bias, threshold, n_tokens, n_rows, mask};
  return LAUNCH(stream, 1, kWarps * kWarp, 0, select_kernel, selection, rows, n);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
