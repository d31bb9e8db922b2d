// The 16-lane form of the one exp (kernels/exp_constants.h says what it computes). Included after a
// backend of F32x16.
#pragma once

#include "kernels/exp_constants.h"

namespace thermocline::kernels {
namespace {

inline F32x16 exp(F32x16 x) {
  x = min(all_lanes(kExpHigh), max(all_lanes(kExpLow), x));  // x second: NaN stays
  const F32x16 n = round_to_even(x * all_lanes(kLog2E));
  F32x16 r = fma(n, all_lanes(-kLn2High), x);
  r = fma(n, all_lanes(-kLn2Low), r);
  F32x16 p = all_lanes(kExpC6);
  p = fma(p, r, all_lanes(kExpC5));
  p = fma(p, r, all_lanes(kExpC4));
  p = fma(p, r, all_lanes(kExpC3));
  p = fma(p, r, all_lanes(kExpC2));
  return times_power_of_two(fma(r * r, p, r) + all_lanes(1.0f), n);
}

}  // namespace
}  // namespace thermocline::kernels
