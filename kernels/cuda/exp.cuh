// The one exp (exp_constants.h) on a device: the CPU's bits.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/exp_constants.h"

namespace thermocline::kernels::SIMT_DEVICE {

// 2^n for n that a normal f32 holds as its exponent.
__device__ __forceinline__ float power_of_two(int n) { return __int_as_float((n + 127) << 23); }

__device__ __forceinline__ float exp_f32(float value) {
  if (!(value == value)) return value;  // NaN
  const float x = fminf(fmaxf(value, kExpLow), kExpHigh);
  const float n = rintf(__fmul_rn(x, kLog2E));
  float r = __fmaf_rn(n, -kLn2High, x);
  r = __fmaf_rn(n, -kLn2Low, r);
  float p = __fmaf_rn(r, kExpC6, kExpC5);
  p = __fmaf_rn(r, p, kExpC4);
  p = __fmaf_rn(r, p, kExpC3);
  p = __fmaf_rn(r, p, kExpC2);
  const float y = __fadd_rn(__fmaf_rn(__fmul_rn(r, r), p, r), 1.0f);
  // In two factors, as 2^n itself may be out of range; only the second product rounds.
  const int whole = __float2int_rn(n), half = whole >> 1;
  return __fmul_rn(__fmul_rn(y, power_of_two(half)), power_of_two(whole - half));
}

}  // namespace thermocline::kernels::SIMT_DEVICE
