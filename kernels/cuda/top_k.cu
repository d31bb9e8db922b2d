// The largest logits and the log of the sum of all exponentials. Each warp keeps its best 64
// sorted, in registers; blocks do so with a part of the logits, then one block with what these
// found.
#include "kernels/cuda/exp.cuh"
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kWarps = 8;
constexpr int kRun = 64;  // entries that a warp sorts
static_assert(kRun == kMaxTopK && kRun == 2 * kWarp);

// A logit and where it stands, as a number that sorts like them: larger first, ties by lower index,
// NaN and infinity below all; 0 is none.
using Entry = unsigned long long;
constexpr Entry kNoEntry = 0;

__device__ __forceinline__ Entry entry_of(float logit, unsigned index) {
  const unsigned bits = __float_as_uint(__fadd_rn(logit, 0.0f));  // -0 is +0
  const unsigned ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Entry>(logit < INFINITY ? ordered : 0) << 32 | ~index;
}
__device__ __forceinline__ unsigned index_of(Entry entry) { return ~static_cast<unsigned>(entry); }

// 64 entries, entry i in lane i % 32.
struct Run {
  Entry low, high;  // i < 32, i >= 32
};

// Keeps the larger or the smaller of the entries that stand `apart` from each other, < 32.
__device__ __forceinline__ Entry exchange(Entry entry, int apart, bool keep_larger) {
  const Entry other = __shfl_xor_sync(kAllLanes, entry, apart);
  return (other > entry) == keep_larger ? other : entry;
}

// Sorts a run that rises to some place and falls from there on, or the other way round, the largest
// first: Batcher's bitonic merge.
__device__ __forceinline__ void merge_halves(int lane, Run* run) {
  const Entry larger = max(run->low, run->high), smaller = min(run->low, run->high);
  *run = {larger, smaller};
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    const bool first = (lane & apart) == 0;
    run->low = exchange(run->low, apart, first);
    run->high = exchange(run->high, apart, first);
  }
}

__device__ __forceinline__ void sort(int lane, Run* run) {
#pragma unroll
  for (int size = 2; size <= kWarp; size *= 2) {  // pieces that are sorted, by turns down and up
#pragma unroll
    for (int apart = size / 2; apart > 0; apart /= 2) {
      const bool first = (lane & apart) == 0;
      const bool down = (lane & size) == 0;
      run->low = exchange(run->low, apart, first == (size == kWarp || down));
      run->high = exchange(run->high, apart, first == (size != kWarp && down));
    }
  }
  merge_halves(lane, run);
}

// The best 64 of two sorted runs, sorted; `reversed` is the second from its end.
__device__ __forceinline__ void merge(int lane, const Run& reversed, Run* best) {
  *best = {max(best->low, reversed.low), max(best->high, reversed.high)};
  merge_halves(lane, best);
}

// A sorted run in memory, from its end.
__device__ __forceinline__ Run load_reversed(int lane, const Entry* run) {
  return {run[kRun - 1 - lane], run[kRun - 1 - lane - kWarp]};
}

// The best 64 that the block's warps hold, in shared memory; runs [kWarps][kRun].
__device__ __forceinline__ void merge_warps(const Run& best, Entry (*runs)[kRun]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  Run merged = best;
  runs[warp][lane] = merged.low;
  runs[warp][lane + kWarp] = merged.high;
  __syncthreads();
  for (int half = kWarps / 2; half > 0; half /= 2) {
    if (warp < half) {
      merge(lane, load_reversed(lane, runs[warp + half]), &merged);
      runs[warp][lane] = merged.low;
      runs[warp][lane + kWarp] = merged.high;
    }
    __syncthreads();
  }
}

// The best 64 of the logits [begin, end) that the calling warp looks at: every 8th run.
__device__ __forceinline__ Run best_of_warp(const float* logits, int64_t begin, int64_t end) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warp = threadIdx.x / kWarp;
  Run best = {kNoEntry, kNoEntry};
  for (int64_t first = begin + warp * kRun; first < end; first += kWarps * kRun) {
    const int64_t i = first + lane, j = i + kWarp;
    Run run = {kNoEntry, kNoEntry};
    if (i < end) run.low = entry_of(logits[i], static_cast<unsigned>(i));
    if (j < end) run.high = entry_of(logits[j], static_cast<unsigned>(j));
    const Entry last = __shfl_sync(kAllLanes, best.high, kWarp - 1);
    if (!__any_sync(kAllLanes, run.low > last || run.high > last)) continue;
    sort(lane, &run);
    const Run reversed = {__shfl_xor_sync(kAllLanes, run.high, kWarp - 1),
                          __shfl_xor_sync(kAllLanes, run.low, kWarp - 1)};
    merge(lane, reversed, &best);
  }
  return best;
}

// What exponentials are taken relative to: the largest logit, where it is finite.
__device__ __forceinline__ float shift_of(float largest) {
  return largest - largest == 0.0f ? largest : 0.0f;
}

// exp(shift) * sum: what a part of the logits adds.
struct Exponentials {
  float shift, sum;
};

// What blocks hand over: runs, then sums.
struct Workspace {
  Entry runs[kTopKBlocks][kRun];
  Exponentials sums[kTopKBlocks];
};
static_assert(sizeof(Workspace) == kTopKBlocks * (kMaxTopK * 8 + 8));

__global__ void __launch_bounds__(kWarps* kWarp)
    top_k_of_blocks(const float* logits, int64_t n, Workspace* workspace) {
  SHARED(runs, Entry[kWarps][kRun]);
  SHARED(of_warp, float[kWarps]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t n_part = div_up(n, kTopKBlocks);
  const int64_t begin = min(blockIdx.x * n_part, n), end = min(begin + n_part, n);
  merge_warps(best_of_warp(logits, begin, end), runs);
  if (threadIdx.x < kRun) workspace->runs[blockIdx.x][threadIdx.x] = runs[0][threadIdx.x];
  const Entry first = runs[0][0];
  const float shift = first == kNoEntry ? 0.0f : shift_of(logits[index_of(first)]);
  float sum = 0.0f;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kWarps * kWarp) {
    sum = __fadd_rn(sum, exp_f32(__fsub_rn(logits[i], shift)));
  }
  sum = warp_sum(sum);
  if (lane == 0) of_warp[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  sum = warp_sum(lane < kWarps ? of_warp[lane] : 0.0f);
  if (lane == 0) workspace->sums[blockIdx.x] = {shift, sum};
}

// The part's sum relative to another shift. A sum of 0 has no shift, nor has one with infinities or
// NaN among its logits.
__device__ __forceinline__ float shifted_sum(const Exponentials& part, float shift) {
  if (part.sum == 0.0f || !(part.sum < INFINITY)) return part.sum;
  return __fmul_rn(part.sum, exp_f32(__fsub_rn(part.shift, shift)));
}

__global__ void __launch_bounds__(kWarps* kWarp)
    top_k_of_all(const float* logits, const Workspace* workspace, int32_t k, int32_t first,
                 float* values, int32_t* indices, float* log_sum) {
  SHARED(runs, Entry[kWarps][kRun]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const Entry* own = workspace->runs[warp];
  Run best = {own[lane], own[lane + kWarp]};
  for (int block = warp + kWarps; block < kTopKBlocks; block += kWarps) {
    merge(lane, load_reversed(lane, workspace->runs[block]), &best);
  }
  merge_warps(best, runs);
  if (static_cast<int>(threadIdx.x) < k) {
    const unsigned index = index_of(runs[0][threadIdx.x]);
    values[threadIdx.x] = logits[index];
    indices[threadIdx.x] = first + static_cast<int32_t>(index);
  }
  if (warp != 0) return;
  const float shift = shift_of(logits[index_of(runs[0][0])]);
  static_assert(kTopKBlocks == 2 * kWarp);
  const float sum = warp_sum(__fadd_rn(shifted_sum(workspace->sums[lane], shift),
                                       shifted_sum(workspace->sums[lane + kWarp], shift)));
  if (lane == 0) *log_sum = __fadd_rn(shift, logf(sum));
}

}  // namespace

LaunchError top_k(DeviceStream* stream, const float* logits, int64_t n, int32_t k, int32_t first,
                  float* values, int32_t* indices, float* log_sum, void* workspace) {
  auto* const parts = static_cast<Workspace*>(workspace);
  const LaunchError error =
      LAUNCH(stream, kTopKBlocks, kWarps * kWarp, 0, top_k_of_blocks, logits, n, parts);
  if (error != 0) return error;
  return LAUNCH(stream, 1, kWarps * kWarp, 0, top_k_of_all, logits, parts, k, first, values,
                indices, log_sum);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
