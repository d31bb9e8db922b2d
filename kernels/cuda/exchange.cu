// A decode step's exchange, by the device itself: one block leaves the partial sum in the segment,
// arrives, waits for the other ranks and adds all partials.
#include "kernels/cuda/functions.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kThreads = 1024;  // 16 bytes each: 16 KiB of the link's latency at once
constexpr int kValues = 4;
constexpr int kMaxRanks = 256;

__device__ __forceinline__ float4 add(const float4& a, const float4& b) {
  return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z),
                     __fadd_rn(a.w, b.w));
}

__device__ __forceinline__ const float4* partial_of(const ExchangeMemory& memory, int rank,
                                                    unsigned buffer) {
  return reinterpret_cast<const float4*>(memory.partials +
                                         (2 * int64_t{rank} + buffer) * memory.partial_stride);
}

// Leaves `partial` (null: nothing) where the others find it, and arrives.
__device__ void publish(const ExchangeMemory& memory, const DeviceStep& step, unsigned number,
                        const float4* partial, int n_groups) {
  const unsigned buffer = number % 2;
  auto* const mine = const_cast<float4*>(partial_of(memory, memory.rank, buffer));
  if (partial != nullptr) {
    for (int i = threadIdx.x; i < n_groups; i += blockDim.x) mine[i] = partial[i];
  }
  if (threadIdx.x == 0) {
    PartialHeader& header = memory.headers[2 * memory.rank + buffer];
    header.epoch = memory.epoch;
    header.exchange = number;
    header.step_number = step.number;
    header.is_empty = partial == nullptr;
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) {
    simt::store_release(memory.arrived + memory.rank * memory.arrived_stride,
                        step.arrivals + number + 1);
  }
}

// Until `rank` has arrived. False when the step is given up meanwhile, or its partial is of another
// exchange.
__device__ bool await(const ExchangeMemory& memory, const DeviceStep& step, unsigned number,
                      int rank, unsigned* state) {
  const unsigned target = step.arrivals + number + 1;
  const unsigned* const arrived = memory.arrived + rank * memory.arrived_stride;
  while (static_cast<int>(simt::load_acquire(arrived) - target) < 0) {
    if (simt::load_acquire(memory.abort) != 0) {
      atomicMax(state, unsigned{kExchangeAborted});
      return false;
    }
    simt::yield();
  }
  const PartialHeader& header = memory.headers[2 * rank + number % 2];
  if (header.epoch == memory.epoch && header.exchange == number &&
      header.step_number == step.number) {
    return true;
  }
  atomicMax(state, unsigned{kExchangeMismatched});
  return false;
}

__global__ void __launch_bounds__(kThreads)
    exchange_kernel(const ExchangeMemory memory, const DeviceStep* step_at, unsigned number,
                    const float4* partial, float4* h, int n_groups, unsigned* state,
                    int64_t* times) {
  SHARED(has_partial, bool[kMaxRanks]);
  const DeviceStep step = *step_at;
  publish(memory, step, number, partial, n_groups);
  if (times != nullptr && threadIdx.x == 0) times[0] = simt::now_ns();
  for (int rank = threadIdx.x; rank < memory.n_ranks; rank += blockDim.x) {
    const bool is_here = rank == memory.rank || await(memory, step, number, rank, state);
    has_partial[rank] = is_here && memory.headers[2 * rank + number % 2].is_empty == 0;
  }
  __syncthreads();
  if (times != nullptr && threadIdx.x == 0) times[1] = simt::now_ns();
  for (int i = threadIdx.x; i < n_groups; i += blockDim.x) {
    float4 sum = h[i];
    for (int rank = 0; rank < memory.n_ranks; ++rank) {
      if (!has_partial[rank]) continue;
      const float4* const part =
          rank == memory.rank ? partial : partial_of(memory, rank, number % 2);
      sum = add(sum, __ldcv(part + i));
    }
    h[i] = sum;
  }
}

}  // namespace

LaunchError exchange(DeviceStream* stream, const ExchangeMemory& memory, const DeviceStep* step,
                     uint32_t number, const float* partial, float* h, int64_t n, uint32_t* state,
                     int64_t* times) {
  const int n_groups = static_cast<int>(n / kValues);
  const int n_threads = static_cast<int>(div_up(n_groups, kWarp)) * kWarp;
  return LAUNCH(stream, dim3(1), dim3(n_threads < kThreads ? n_threads : kThreads), 0,
                exchange_kernel, memory, step, number, reinterpret_cast<const float4*>(partial),
                reinterpret_cast<float4*>(h), n_groups, state, times);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
