// Quantized weights times int8 activations: the reference. Contract: ops.h, matmul_int8.
#include "kernels/levels.h"
#include "kernels/reference/packed_block.h"

namespace thermocline::kernels::reference {
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
