// The functions of every ISA level, by the names of the Math table; math.cc alone puts them there.
#pragma once

#include "solver/predictor/math.h"

#define THERMOCLINE_MATH_LEVEL(level)                                                              \
  namespace thermocline::math::level {                                                             \
  void multiply(const Factor& a, const float* b, int64_t b_stride, int64_t n_rows, int64_t n_cols, \
                int64_t depth, float* c, int64_t c_stride);                                        \
  void logistic_slope(float* score, const uint16_t* activation, float scale, int64_t n);           \
  void adam(float* weight, float* mean, float* square, const float* slope, const AdamStep& step,   \
            int64_t n);                                                                            \
  }

THERMOCLINE_MATH_LEVEL(reference)
THERMOCLINE_MATH_LEVEL(avx2)
THERMOCLINE_MATH_LEVEL(avx512)
#undef THERMOCLINE_MATH_LEVEL
