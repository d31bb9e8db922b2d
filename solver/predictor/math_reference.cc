// The array functions of training as plain loops: the judge of the other levels, and what a machine
// without AVX2 trains with.
#include <cmath>

#include "common/gguf/half.h"
#include "solver/predictor/math_levels.h"

namespace thermocline::math::reference {

void multiply(const Factor& a, const float* b, int64_t b_stride, int64_t n_rows, int64_t n_cols,
              int64_t depth, float* c, int64_t c_stride) {
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t k = 0; k < depth; ++k) {
      const float left = a.data[row * a.row_stride + k * a.depth_stride];
      for (int64_t col = 0; col < n_cols; ++col) {
        c[row * c_stride + col] += left * b[k * b_stride + col];
      }
    }
  }
}

void logistic_slope(float* score, const uint16_t* activation, float scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float p = 1 / (1 + std::exp(-score[i]));
    const float cost = f16_to_f32(activation[i]) * scale;
    score[i] = cost > 0 ? cost * (p - 1) : p;
  }
}

void adam(float* weight, float* mean, float* square, const float* slope, const AdamStep& step,
          int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    mean[i] += step.mean_share * (slope[i] - mean[i]);
    square[i] += step.square_share * (slope[i] * slope[i] - square[i]);
    weight[i] -= step.rate * step.mean_scale * mean[i] /
                 (std::sqrt(step.square_scale * square[i]) + kAdamFloor);
  }
}

}  // namespace thermocline::math::reference
