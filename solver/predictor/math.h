// The three array functions that training a predictor spends its time in, as one table of function
// pointers per ISA level. No threads, no allocation. Sums run in another order at each level, so
// results of two levels differ by rounding; on one level they are the same bits every time.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace thermocline::math {

// The left factor of a product; transposed when row_stride is 1.
struct Factor {
  const float* data;  // element (row, k) at data[row * row_stride + k * depth_stride]
  int64_t row_stride;
  int64_t depth_stride;
};

// One step of Adam (Kingma and Ba, arXiv 1412.6980).
struct AdamStep {
  float rate;          // length of a step, in units of the weight
  float mean_share;    // 1 - beta1
  float square_share;  // 1 - beta2
  float mean_scale;    // 1 / (1 - beta1^t)
  float square_scale;  // 1 / (1 - beta2^t)
};

// Added to the root of the squares: a weight without a slope stays.
inline constexpr float kAdamFloor = 1e-12f;

struct Math {
  // c [n_rows, n_cols] += a [n_rows, depth] . b [depth, n_cols]; columns of b and c are contiguous.
  void (*multiply)(const Factor& a, const float* b, int64_t b_stride, int64_t n_rows,
                   int64_t n_cols, int64_t depth, float* c, int64_t c_stride);
  // In place, score [n] becomes the slope of the loss: with p = 1 / (1 + exp(-score)), p where a
  // neuron does not fire (activation 0), else activation * scale * (p - 1). activation [n], f16.
  void (*logistic_slope)(float* score, const uint16_t* activation, float scale, int64_t n);
  // weight, mean, square [n] in place; slope [n].
  void (*adam)(float* weight, float* mean, float* square, const float* slope, const AdamStep& step,
               int64_t n);
};

const Math& math_of(kernels::Isa isa);  // kernels::isa_supported(isa) must hold

}  // namespace thermocline::math
