// A decode step's exchange, by the device itself: one block leaves the partial sum in the segment,
// arrives, waits for the other ranks and adds all partials.
#pragma once

#include "kernels/cuda/op.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kMaxRanks = 256;

__device__ __forceinline__ float4 sum_of(const float4& a, const float4& b) {
  return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z),
                     __fadd_rn(a.w, b.w));
}

__device__ __forceinline__ const float4* partial_of(const ExchangeMemory& memory, int rank,
                                                    unsigned buffer) {
  return reinterpret_cast<const float4*>(memory.partials +
                                         (2 * int64_t{rank} + buffer) * memory.partial_stride);
}

// Leaves `partial` (null: nothing) where the others find it, and arrives.
__device__ inline void publish(const ExchangeMemory& memory, const DeviceStep& step,
                               unsigned number, const float4* partial, int n_groups) {
  const unsigned buffer = number % 2;
  auto* const mine = const_cast<float4*>(partial_of(memory, memory.rank, buffer));
  if (partial != nullptr) {
#pragma unroll 4
    for (int i = threadIdx.x; i < n_groups; i += kBlockThreads) mine[i] = partial[i];
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
__device__ inline bool await(const ExchangeMemory& memory, const DeviceStep& step, unsigned number,
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

struct ExchangeOp : OfBlocks {
  struct Call {
    ExchangeMemory memory;
    const DeviceStep* step;
    unsigned number;
    const float4* partial;
    float4* h;
    int n_groups;  // of 16 bytes
    unsigned* state;
    int64_t* times;
  };
  struct Shared {
    bool has_partial[kMaxRanks];
  };
  static constexpr int kNumber = op_number(OpFamily::kExchange);
  static constexpr const char* kName = kExchangeKernel;

  static __device__ __forceinline__ void run(const Call& call, int, Shared* shared) {
    const ExchangeMemory& memory = call.memory;
    const DeviceStep step = *call.step;
    publish(memory, step, call.number, call.partial, call.n_groups);
    if (call.times != nullptr && threadIdx.x == 0) call.times[0] = simt::now_ns();
    for (int rank = threadIdx.x; rank < memory.n_ranks; rank += kThreads) {
      const bool is_here =
          rank == memory.rank || await(memory, step, call.number, rank, call.state);
      shared->has_partial[rank] =
          is_here && memory.headers[2 * rank + call.number % 2].is_empty == 0;
    }
    __syncthreads();
    if (call.times != nullptr && threadIdx.x == 0) call.times[1] = simt::now_ns();
    for (int first = threadIdx.x; first < call.n_groups; first += kInFlight * kThreads) {
      add_partials(call, first, shared->has_partial);
    }
  }

 private:
  static constexpr int kInFlight = 4;  // loads of a thread: of 16 KiB all cross the link at once

  static __device__ __forceinline__ void add_partials(const Call& call, int first,
                                                      const bool* has_partial) {
    float4 sums[kInFlight] = {};
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int at = first + i * kThreads;
      if (at < call.n_groups) sums[i] = call.h[at];
    }
    for (int rank = 0; rank < call.memory.n_ranks; ++rank) {
      if (!has_partial[rank]) continue;
      const float4* const part =
          rank == call.memory.rank ? call.partial : partial_of(call.memory, rank, call.number % 2);
      float4 parts[kInFlight] = {};
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int at = first + i * kThreads;
        if (at < call.n_groups) parts[i] = __ldcv(part + at);
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) sums[i] = sum_of(sums[i], parts[i]);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int at = first + i * kThreads;
      if (at < call.n_groups) call.h[at] = sums[i];
    }
  }
};

}  // namespace thermocline::kernels::SIMT_DEVICE
