// Quantized weights times int8 activations: the reference. Contract: ops.h, matmul_int8.
#include <cmath>

#include "kernels/levels.h"
#include "kernels/reference/packed_block.h"

namespace thermocline::kernels::reference {
namespace {

// acc plus 32 products; |integer| < 2^24 for every type, so its conversion to f32 is exact.
float add_block(float acc, const RowBlock& w, const int8_t* q, float scale, int32_t sum) {
  int32_t half_sums[2] = {0, 0};
  for (int k = 0; k < kBlockCols; ++k) half_sums[k / 16] += w.q[k] * q[k];
  const int32_t integer = w.sub_scale[0] * half_sums[0] + w.sub_scale[1] * half_sums[1];
  acc = std::fma(static_cast<float>(integer), w.scale * scale, acc);
  if (w.has_min) acc = std::fma(-static_cast<float>(sum), w.min * scale, acc);
  return acc;
}

}  // namespace

void matmul_int8(const PackedMatrix& w, int64_t group_begin, int64_t group_end,
                 const QuantizedRows& x, int64_t n_tokens, float* out, int64_t out_stride) {
  const int64_t n_blocks = w.n_blocks();
  for (int64_t group = group_begin; group < group_end; ++group) {
    for (int row = 0; row < kGroupRows; ++row) {
      float* column = out + (group - group_begin) * kGroupRows + row;
      for (int64_t t = 0; t < n_tokens; ++t) column[t * out_stride] = 0.0f;
      for (int64_t b = 0; b < n_blocks; ++b) {
        const RowBlock block = read_row_block(w, group, b, row);
        for (int64_t t = 0; t < n_tokens; ++t) {
          const int64_t at = t * (x.stride / kBlockCols) + b;
          float& acc = column[t * out_stride];
          acc = add_block(acc, block, x.q + at * kBlockCols, x.scale[at], x.sum[at]);
        }
      }
    }
  }
}

}  // namespace thermocline::kernels::reference
