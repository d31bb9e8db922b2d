// What kernels use beyond CUDA's language, for nvcc. on_host.h has the same for the host.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define SIMT_DEVICE cuda

namespace thermocline::kernels::simt {

// So that an array's type can stand before its name.
template <typename T>
using SameType = T;

// Called each time round a loop that waits for another block or for the host. Nothing on a GPU,
// whose threads all advance.
__device__ __forceinline__ void yield() {}

// Reads and writes that order others around them, also as another device or the host sees them.
__device__ __forceinline__ unsigned load_acquire(const unsigned* address) {
  unsigned value;
  asm volatile("ld.acquire.sys.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(unsigned* address, unsigned value) {
  asm volatile("st.release.sys.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

// The device's time, of no fixed beginning. All its blocks have the same.
__device__ __forceinline__ int64_t now_ns() {
  int64_t ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
  return ns;
}

}  // namespace thermocline::kernels::simt

#define SHARED(name, ...) __shared__ ::thermocline::kernels::simt::SameType<__VA_ARGS__> name
// One declaration of the block's memory for all kernels of a file, whatever they keep in it.
#define DYNAMIC_SHARED(name, ...)                                   \
  extern __shared__ uint4 simt_dynamic_shared[];                    \
  ::thermocline::kernels::simt::SameType<__VA_ARGS__>* const name = \
      reinterpret_cast<::thermocline::kernels::simt::SameType<__VA_ARGS__>*>(simt_dynamic_shared)
