// Weights of any type times f32 activations: the reference. Contract: ops.h, matmul_f32.
#include <cmath>

#include "kernels/levels.h"

namespace thermocline::kernels::reference {

void matmul_f32(const PackedMatrix& w, int64_t group_begin, int64_t group_end, const float* x,
                int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride) {
  for (int64_t group = group_begin; group < group_end; ++group) {
    float* columns = out + (group - group_begin) * kGroupRows;
    for (int64_t t = 0; t < n_tokens; ++t) {
      for (int row = 0; row < kGroupRows; ++row) columns[t * out_stride + row] = 0.0f;
    }
    for (int64_t first = 0; first < w.n_cols; first += kBlockCols) {
      float values[32][16];
      unpack_block(w, group, first / kBlockCols, values);
      for (int64_t t = 0; t < n_tokens; ++t) {
        for (int64_t k = 0; k < kBlockCols && first + k < w.n_cols; ++k) {
          for (int row = 0; row < kGroupRows; ++row) {
            float& acc = columns[t * out_stride + row];
            acc = std::fma(values[k][row], x[t * x_stride + first + k], acc);
          }
        }
      }
    }
  }
}

}  // namespace thermocline::kernels::reference
