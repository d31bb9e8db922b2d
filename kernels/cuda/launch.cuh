// What every kernel file needs: the language (nvcc's or the SIMT layer's), one way to launch, and
// the few device functions that all of them share. Each .cu is compiled twice: by nvcc into
// namespace cuda, and for the host into namespace emulated (SIMT_DEVICE).
#pragma once

#include "kernels/cuda/device_ops.h"
#include "kernels/simt/simt.h"
#ifndef __CUDACC__
#include "kernels/simt/launch.h"
#endif

namespace thermocline::kernels::SIMT_DEVICE {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

#ifdef __CUDACC__
inline constexpr LaunchError kNotInPrograms = cudaErrorNotSupported;

template <typename... Parameters, typename... Arguments>
LaunchError launch(DeviceStream* stream, const char*, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (stream->program != nullptr) return kNotInPrograms;
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream->native)>>>(
      static_cast<Parameters>(arguments)...);
  return static_cast<LaunchError>(cudaPeekAtLastError());
}
#else
inline constexpr LaunchError kNotInPrograms = static_cast<LaunchError>(simt::ErrorCode::kBadLaunch);

template <typename... Parameters, typename... Arguments>
LaunchError launch(DeviceStream* stream, const char* name, dim3 grid, dim3 block,
                   size_t shared_bytes, void (*kernel)(Parameters...),
                   const Arguments&... arguments) {
  if (stream->program != nullptr) return kNotInPrograms;
  return static_cast<LaunchError>(simt::launch(static_cast<simt::Stream*>(stream->native),
                                               {name, grid, block, shared_bytes}, kernel,
                                               arguments...));
}
#endif
// kernel: a function, in parentheses where it is a template with commas. Not for programs: those
// take ops (op.cuh).
#define LAUNCH(stream, grid, block, shared_bytes, kernel, ...) \
  launch(stream, #kernel, grid, block, shared_bytes, kernel, __VA_ARGS__)

__host__ __device__ constexpr int64_t div_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit;
}

// The sum over the lanes of a warp, in every lane; lanes 16, 8, 4, 2, 1 apart are added.
__device__ __forceinline__ float warp_sum(float x) {
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    x = __fadd_rn(x, __shfl_xor_sync(kAllLanes, x, apart));
  }
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, apart));
  }
  return x;
}

}  // namespace thermocline::kernels::SIMT_DEVICE
