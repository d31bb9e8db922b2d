// The scalar form of the one exp (kernels/exp_constants.h says what it computes).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/exp_constants.h"

namespace thermocline::kernels::reference {

// 2^n for n in [-126, 127].
inline float power_of_two(int n) {
  return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
}

inline float exp(float x) {
  if (std::isnan(x)) return x;
  if (x < kExpLow) x = kExpLow;
  if (x > kExpHigh) x = kExpHigh;
  const float n = std::nearbyint(x * kLog2E);
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = kExpC6;
  p = std::fma(p, r, kExpC5);
  p = std::fma(p, r, kExpC4);
  p = std::fma(p, r, kExpC3);
  p = std::fma(p, r, kExpC2);
  const float y = std::fma(r * r, p, r) + 1.0f;
  // n reaches -150 and 128, so 2^n comes in two factors; the first product is exact.
  const int half = static_cast<int>(n) >> 1;
  return y * power_of_two(half) * power_of_two(static_cast<int>(n) - half);
}

}  // namespace thermocline::kernels::reference
