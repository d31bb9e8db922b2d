// Kernels with one bug each, which the layer must report.
#ifndef __CUDACC__
#include "tests/kernels/simt/kernels.h"
#endif
#include "kernels/simt/simt.h"

namespace thermocline::kernels::SIMT_DEVICE {

__global__ void exit_before_barrier(int n) {
  if (threadIdx.x >= static_cast<unsigned>(n)) return;
  __syncthreads();
}

__global__ void meet_at_two_barriers(int n) {
  if (threadIdx.x < static_cast<unsigned>(n)) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_with_exited_lane(int* out) {
  if (threadIdx.x == 9) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffff, threadIdx.x, 1);
}

__global__ void shuffle_from_lane_outside_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffff, threadIdx.x, 16);
}

__global__ void shuffle_without_own_lane(int* out) {
  out[threadIdx.x] = __shfl_sync(0x0000ffff, threadIdx.x, 0);
}

__global__ void meet_in_two_operations(int* out) {
  if (threadIdx.x % 2 == 0) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, threadIdx.x, 1);
  } else {
    out[threadIdx.x] = __ballot_sync(0xffffffff, 1);
  }
}

__global__ void never_meet(int* out) {
  const unsigned mask = threadIdx.x < 16 ? 0x0001ffff : 0xffff8000;
  out[threadIdx.x] = __ballot_sync(mask, 1);
}

__global__ void trap_in_thread(int number) {
  if (threadIdx.x == static_cast<unsigned>(number)) __trap();
  __syncthreads();
}

__global__ void take_too_much_shared(int* out) {
  SHARED(large, int[12288]);
  SHARED(one_more, int);
  large[threadIdx.x] = one_more = 0;
  out[threadIdx.x] = large[threadIdx.x];
}

__global__ void spin_on_other_block(unsigned* flag) {
  if (blockIdx.x == 0) {
    while (simt::load_acquire(flag) == 0) simt::yield();
  } else {
    simt::store_release(flag, 1);
  }
}

__global__ void overrun_shared(int index, int* out) {
  SHARED(values, int[32]);
  int* const all = values;
  all[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = all[index];
}

__global__ void overrun_dynamic_shared(int index, int* out) {
  DYNAMIC_SHARED(values, int);
  values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[index];
}

__global__ void overrun_global(int index, int* out) { out[index + threadIdx.x] = 1; }

__device__ int fill_frames(int depth) {
  volatile int frame[1024];
  for (int i = 0; i < 1024; ++i) frame[i] = i;
  const int deeper = depth > 0 ? fill_frames(depth - 1) : 0;
  return deeper + frame[depth % 1024];
}

__global__ void overrun_stack(int depth, int* out) { *out = fill_frames(depth); }

__global__ void reverse_in_shared(bool with_order, int* out) {
  SHARED(values, int[64]);
  values[threadIdx.x] = threadIdx.x;
  if (with_order) __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

// Threads take the neighbour's value, and put their own in its place too early.
__global__ void write_after_read(bool with_order, int* out) {
  SHARED(values, int[64]);
  values[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = values[(threadIdx.x + 1) % 64];
  if (with_order) __syncthreads();
  values[threadIdx.x] = 0;
}

// A shuffle lets lanes meet, but orders no memory.
__global__ void exchange_lanes(bool with_order, int* out) {
  SHARED(values, int[32]);
  values[threadIdx.x] = threadIdx.x;
  if (with_order) {
    __syncwarp();
  } else {
    __shfl_xor_sync(0xffffffff, threadIdx.x, 1);
  }
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void write_one_word_from_all_blocks(bool with_order, int* out) {
  if (with_order) {
    atomicExch(out, 1);
  } else {
    *out = 1;
  }
}

// Block 0 writes data, then the flag; block 1 waits for the flag. Without the fence a GPU may show
// the flag first.
__global__ void publish(bool with_order, int* data, unsigned* flag, int* out) {
  if (blockIdx.x == 0) {
    *data = 5;
    if (with_order) __threadfence();
    atomicExch(flag, 1u);
  } else {
    while (simt::load_acquire(flag) == 0) simt::yield();
    *out = *data;
  }
}

__global__ void count_plainly(bool with_order, int* count) {
  if (with_order) {
    atomicAdd(count, 1);
  } else {
    *count += 1;
  }
}

__global__ void write_neighbouring_bytes(unsigned char* out) { out[threadIdx.x] = threadIdx.x; }

// Thread 0 announces its block's data before the other threads have surely written theirs.
__global__ void read_what_threads_of_others_wrote(bool with_order, int* data, unsigned* arrived,
                                                  int* out) {
  const int n = blockDim.x, i = blockIdx.x * n + threadIdx.x;
  if (threadIdx.x != 0) data[i] = i;
  if (with_order) __syncthreads();
  if (threadIdx.x == 0) {
    data[i] = i;
    __threadfence();
    atomicAdd(arrived, 1u);
    while (simt::load_acquire(arrived) < gridDim.x) simt::yield();
  }
  __syncthreads();
  out[i] = data[(i + n) % (n * gridDim.x)];
}

}  // namespace thermocline::kernels::SIMT_DEVICE
