// CUDA's keywords, built-in variables and shared memory for the host. Functions: the files
// included.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/simt/atomics.h"
#include "kernels/simt/half.h"
#include "kernels/simt/intrinsics.h"
#include "kernels/simt/threads.h"
#include "kernels/simt/vector_types.h"
#include "kernels/simt/warp.h"

#define SIMT_DEVICE emulated

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (::thermocline::kernels::simt::thread_index())
#define blockIdx (::thermocline::kernels::simt::block_index())
#define blockDim (::thermocline::kernels::simt::block_size())
#define gridDim (::thermocline::kernels::simt::grid_size())
#define warpSize 32

#define SHARED(name, ...)                                                        \
  static constexpr ::thermocline::kernels::simt::SharedVariable name##_variable{ \
      #name, sizeof(::thermocline::kernels::simt::SameType<__VA_ARGS__>)};       \
  auto& name = ::thermocline::kernels::simt::shared_variable<                    \
      ::thermocline::kernels::simt::SameType<__VA_ARGS__>>(name##_variable)
#define DYNAMIC_SHARED(name, ...)                                                       \
  auto* const name = static_cast<::thermocline::kernels::simt::SameType<__VA_ARGS__>*>( \
      ::thermocline::kernels::simt::dynamic_shared())
