// Kernels that are right: what they compute says whether the layer means what CUDA means.
#ifndef __CUDACC__
#include "tests/kernels/simt/kernels.h"
#endif
#include "kernels/simt/simt.h"

namespace thermocline::kernels::SIMT_DEVICE {

__global__ void store_indices(unsigned* indices) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  unsigned* out = indices + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
  out[0] = threadIdx.x;
  out[1] = threadIdx.y;
  out[2] = threadIdx.z;
  out[3] = blockIdx.x;
  out[4] = blockIdx.y;
  out[5] = blockIdx.z;
}

template <typename T>
__device__ __forceinline__ T sum_warp(T value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffff, value, mask);
  return value;
}

__global__ void __launch_bounds__(1024)
    sum_blocks(const float* __restrict__ values, int n, float* sums) {
  SHARED(of_warp, float[32]);
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
  const float sum = sum_warp(i < n ? __ldg(values + i) : 0.0f);
  if (lane == 0) of_warp[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  const int n_warps = blockDim.x / warpSize;
  const float all = sum_warp(lane < n_warps ? of_warp[lane] : 0.0f);
  if (lane == 0) sums[blockIdx.x] = all;
}

__global__ void scan(const int* values, int n, int* sums) {
  DYNAMIC_SHARED(shared, int);  // [blockDim.x]
  const int i = threadIdx.x;
  shared[i] = i < n ? values[i] : 0;
  __syncthreads();
  for (unsigned step = 1; step < blockDim.x; step *= 2) {
    const int other = threadIdx.x >= step ? shared[i - step] : 0;
    __syncthreads();
    shared[i] += other;
    __syncthreads();
  }
  if (i < n) sums[i] = shared[i];
}

__global__ void count_bytes(const unsigned char* bytes, int n, unsigned* counts) {
  SHARED(here, unsigned[256]);
  for (int i = threadIdx.x; i < 256; i += blockDim.x) here[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&here[bytes[i]], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&counts[i], here[i]);
}

__global__ void transpose(const float* in, int n_rows, int n_columns, float* out) {
  SHARED(tile, float[32][33]);
  const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
  for (int y = 0; y < 32; y += 8) {
    if (row + y < n_rows && column < n_columns) {
      tile[threadIdx.y + y][threadIdx.x] = in[(row + y) * n_columns + column];
    }
  }
  __syncthreads();
  const int out_column = blockIdx.y * 32 + threadIdx.x, out_row = blockIdx.x * 32 + threadIdx.y;
  for (int y = 0; y < 32; y += 8) {
    if (out_row + y < n_columns && out_column < n_rows) {
      out[(out_row + y) * n_rows + out_column] = tile[threadIdx.x][threadIdx.y + y];
    }
  }
}

__global__ void reverse(float4* values) {
  DYNAMIC_SHARED(shared, float4);
  shared[blockDim.x - 1 - threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = shared[threadIdx.x];
}

__global__ void store_unwritten(unsigned* words) {
  SHARED(unwritten, unsigned[64]);
  words[threadIdx.x] = unwritten[threadIdx.x];
}

__global__ void shuffle_all(int* out) {
  const int lane = threadIdx.x;
  int* results = out + 8 * lane;
  results[0] = __shfl_sync(0xffffffff, lane, 7);
  results[1] = __shfl_sync(0xffffffff, lane, lane + 33);
  results[2] = __shfl_sync(0xffffffff, lane, 2, 8);
  results[3] = __shfl_up_sync(0xffffffff, lane, 3);
  results[4] = __shfl_up_sync(0xffffffff, lane, 1, 4);
  results[5] = __shfl_down_sync(0xffffffff, lane, 3, 16);
  results[6] = __shfl_xor_sync(0xffffffff, lane, 5);
  results[7] = __shfl_xor_sync(0xffffffff, lane, 24, 16);
}

template <typename T>
__device__ bool comes_from_above(T value, T above) {
  return __shfl_down_sync(0xffffffff, value, 1) == above;
}

__global__ void shuffle_types(int* out) {
  const int lane = threadIdx.x, next = lane < 31 ? lane + 1 : lane;
  bool right = comes_from_above<float>(lane + 0.5f, next + 0.5f);
  right &= comes_from_above<unsigned>(~lane, ~next);
  right &= comes_from_above<double>(lane + 1e-12, next + 1e-12);
  right &= comes_from_above<long long>((1LL << 40) + lane, (1LL << 40) + next);
  right &= comes_from_above<unsigned long long>(~0ull - lane, ~0ull - next);
  const __half half = __shfl_down_sync(0xffffffff, __float2half_rn(lane), 1);
  right &= __half2float(half) == next;
  const __half2 pair = __shfl_down_sync(0xffffffff, __floats2half2_rn(lane, -lane), 1);
  right &= __low2float(pair) == next && __high2float(pair) == -next;
  out[lane] = right;
}

__global__ void vote_all(unsigned* out) {
  const int lane = threadIdx.x;
  if (lane >= 20) return;
  out[4 * lane] = __ballot_sync(0xffffffff, lane % 2);
  out[4 * lane + 1] = __any_sync(0xffffffff, lane == 19);
  out[4 * lane + 2] = __all_sync(0xffffffff, lane % 2);
  out[4 * lane + 3] = __all_sync(0xffffffff, lane < 20);
}

__global__ void sum_halves(int* out) {
  int sum = threadIdx.x;
  if (threadIdx.x < 16) {
    for (int mask = 8; mask > 0; mask /= 2) sum += __shfl_xor_sync(0x0000ffff, sum, mask);
  } else {
    for (int mask = 1; mask < 16; mask *= 2) sum += __shfl_xor_sync(0xffff0000, sum, mask);
  }
  __syncwarp();
  out[threadIdx.x] = sum;
}

__global__ void exchange_in_warp(int* out) {
  SHARED(values, int[128]);
  values[threadIdx.x] = 3 * threadIdx.x;
  __syncwarp();
  const int neighbour = values[threadIdx.x ^ 1];
  __syncwarp();
  values[threadIdx.x] = neighbour;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x ^ 32];
}

// All blocks of a cooperative grid meet; *arrived counts their arrivals since the launch.
__device__ void meet(unsigned* arrived, unsigned round) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (simt::load_acquire(arrived) < (round + 1) * gridDim.x) simt::yield();
  }
  __syncthreads();
}

__global__ void sum_in_rounds(unsigned* cell, unsigned* arrived, int n_rounds, unsigned* out) {
  for (int round = 0; round < n_rounds; ++round) {
    if (threadIdx.x == 32) atomicAdd(cell, blockIdx.x);
    meet(arrived, 2 * round);
    if (threadIdx.x == 33) out[round * gridDim.x + blockIdx.x] = *cell;
    meet(arrived, 2 * round + 1);
  }
}

__global__ void sum_by_last_block(const int* values, int n, int* partial, unsigned* arrived,
                                  int* sum) {
  SHARED(is_last, bool);
  const int i = blockIdx.x * 32 + threadIdx.x;
  const int of_block = sum_warp(i < n ? values[i] : 0);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = of_block;
    __threadfence();
    is_last = atomicAdd(arrived, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  int all = 0;
  for (unsigned block = threadIdx.x; block < gridDim.x; block += 32) all += partial[block];
  all = sum_warp(all);
  if (threadIdx.x == 0) *sum = all;
}

__global__ void hand_over(unsigned* word, unsigned* out) {
  if (threadIdx.x == 0) {
    while (simt::load_acquire(word) != 1) __nanosleep(20);
    simt::store_release(word, 2);
  } else if (threadIdx.x == 32) {
    simt::store_release(word, 1);
    while (simt::load_acquire(word) != 2) simt::yield();
    *out = 3;
  }
}

__global__ void answer(unsigned* flag, unsigned n_rounds) {
  for (unsigned round = 0; round < n_rounds; ++round) {
    if (threadIdx.x == 0) {
      while (simt::load_acquire(flag) != 2 * round + 1) simt::yield();
      simt::store_release(flag, 2 * round + 2);
    }
    __syncthreads();
  }
}

__global__ void compute(unsigned* out) {
  const __half2 pair = __floats2half2_rn(1.0f, -2.0f);
  const __nv_bfloat16 bfloat = __float2bfloat16_rn(1.00390625f);  // a tie: to even, down
  const float nan = __int_as_float(0x7fc01234);
  const unsigned results[] = {
      __half_as_ushort(__float2half_rn(65504.0f)),
      __half_as_ushort(__float2half_rn(65520.0f)),        // rounds to infinity
      __half_as_ushort(__float2half_rn(1.00048828125f)),  // a tie: to even, down
      __half_as_ushort(__float2half_rn(5.9604645e-8f)),   // the smallest subnormal
      __half_as_ushort(__float2half_rn(nan)),
      __float_as_uint(__half2float(__ushort_as_half(0x0001))),
      __float_as_uint(__half22float2(pair).y),
      __bfloat16_as_ushort(bfloat),
      __bfloat16_as_ushort(__float2bfloat16_rn(1.01171875f)),  // a tie: to even, up
      __bfloat16_as_ushort(__float2bfloat16_rn(nan)),
      __float_as_uint(__bfloat162float(__ushort_as_bfloat16(0x3f81))),
      static_cast<unsigned>(__dp4a(static_cast<int>(0x80ff7f01), 0x7f02807f, 5)),
      __dp4a(0x80ff7f01u, 0x7f02807fu, 5u),
      static_cast<unsigned>(__dp4a(0x01010101, 0x7f7f7f7f, 0x7fffffff)),  // wraps
      static_cast<unsigned>(__popc(0xf0f00001)),
      static_cast<unsigned>(__clz(0)),
      static_cast<unsigned>(__clz(0x00010000)),
      static_cast<unsigned>(__ffs(0)),
      static_cast<unsigned>(__ffs(0x50)),
      __byte_perm(0x33221100, 0x77665544, 0x7206),
      __funnelshift_r(0x89abcdef, 0x01234567, 8),
      __funnelshift_l(0x89abcdef, 0x01234567, 8),
      static_cast<unsigned>(__float2int_rn(2.5f)),
      static_cast<unsigned>(__float2int_rn(-3.5f)),
      static_cast<unsigned>(__float2int_rn(3e9f)),
      static_cast<unsigned>(__float2int_rn(-3e9f)),
      static_cast<unsigned>(__float2int_rn(nan)),
      // 1 + 2^-12 squared: only one rounding keeps the 2^-24.
      __float_as_uint(__fmaf_rn(1.000244140625f, 1.000244140625f, -1.00048828125f)),
      __float_as_uint(__fadd_rn(__fmul_rn(1.000244140625f, 1.000244140625f), -1.00048828125f)),
      __float_as_uint(__frsqrt_rn(2.0f)),
      __float_as_uint(min(nan, 1.0f)),
      __float_as_uint(max(-0.0f, 0.0f)),
      __float_as_uint(min(0.0f, -0.0f)),
      static_cast<unsigned>(min(-1, 1)),
      max(0x80000000u, 1u),
  };
  int i = 0;
  for (const unsigned result : results) out[i++] = result;
}

__global__ void use_atomics(unsigned* cells, unsigned long long* wide, float* sum) {
  const unsigned i = threadIdx.x;
  atomicAdd(&cells[0], i);
  atomicMax(&cells[1], i ^ 5);
  atomicMin(&cells[2], i + 3);
  atomicOr(&cells[3], 1u << i % 32);
  atomicAnd(&cells[4], ~(1u << i % 4));
  atomicExch(&cells[5], 7u);
  for (unsigned old = atomicAdd(&cells[6], 0u), seen;
       (seen = atomicCAS(&cells[6], old, old * 3)) != old;)
    old = seen;
  atomicMin(reinterpret_cast<int*>(&cells[7]), -static_cast<int>(i));
  atomicMax(reinterpret_cast<int*>(&cells[8]), -static_cast<int>(i) - 1);
  atomicAdd(wide, 1ull << 32);
  atomicAdd(sum, 0.5f);
}

__global__ void pass_arguments(float4 vector, double wide, char narrow, double* out) {
  out[0] = vector.x;
  out[1] = vector.w;
  out[2] = wide;
  out[3] = narrow;
}

}  // namespace thermocline::kernels::SIMT_DEVICE
