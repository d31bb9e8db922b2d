// The constants and the sequence of f32 operations of the one exp that every level computes; the
// code is in reference/exp.h (scalar) and cpu/exp_body.h (16 lanes), equal in every bit.
//
//   x = min(max(x, kExpLow), kExpHigh), NaN kept    both ends are past where exp is 0 or infinite
//   n = round(x * kLog2E), half to even
//   r = fma(n, -kLn2High, x), r = fma(n, -kLn2Low, r)                  |r| <= ln(2) / 2
//   p = c2 + r * (c3 + r * (c4 + r * (c5 + r * c6))), Horner, one fma each
//   y = fma(r * r, p, r) + 1, times 2^n with one rounding
//
// So exp(0) is 1, and results below 2^-126 are subnormal, not flushed. Error: at most 1.01 ulp,
// over all f32 (tests/kernels/exp_test.cc samples them).
#pragma once

namespace thermocline::kernels {

inline constexpr float kExpLow = -104.0f;  // exp(-103.98) is half of the least subnormal
inline constexpr float kExpHigh = 89.0f;   // exp(88.73) is past the largest f32
inline constexpr float kLog2E = 0x1.715476p+0f;
// ln(2) in two parts: n * kLn2High is subtracted exactly, since |n| < 2^8 and fma does not round
// it.
inline constexpr float kLn2High = 0x1.62e43p-1f;
inline constexpr float kLn2Low = -0x1.05c61p-29f;
// Least maximum relative error of 1 + r + r^2 * p(r) on |r| <= ln(2) / 2, by Remez exchange in
// f64; 3.6e-9 after rounding to f32.
inline constexpr float kExpC2 = 0x1.fffffcp-2f;
inline constexpr float kExpC3 = 0x1.555492p-3f;
inline constexpr float kExpC4 = 0x1.5558f2p-5f;
inline constexpr float kExpC5 = 0x1.123a2p-7f;
inline constexpr float kExpC6 = 0x1.6a23dp-10f;

}  // namespace thermocline::kernels
