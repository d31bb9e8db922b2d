// The input of products, [n_tokens, width]: f32, and int8 where a weight wants it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace thermocline {

class Activations {
 public:
  void Allocate(int64_t max_tokens, int64_t width);
  float* row(int64_t token) { return f32_.data() + token * width_; }
  // Elements [begin, end) of a token, begin a multiple of 32.
  void Quantize(const kernels::Ops& ops, int64_t token, int64_t begin, int64_t end);
  // Columns from `column` (a multiple of 32) on.
  kernels::QuantizedRows quantized(int64_t column = 0) const {
    const int64_t block = column / kernels::kBlockCols;
    return {q_.data() + column, scale_.data() + block, sum_.data() + block, width_};
  }
  const float* f32(int64_t column = 0) const { return f32_.data() + column; }
  int64_t width() const { return width_; }

 private:
  int64_t width_ = 0;         // of a row; a multiple of 32 (columns past the real width stay 0)
  std::vector<float> f32_;    // [max_tokens, width]
  std::vector<int8_t> q_;     // [max_tokens, width]
  std::vector<float> scale_;  // [max_tokens, width / 32]
  std::vector<int32_t> sum_;  // [max_tokens, width / 32]
};

}  // namespace thermocline
