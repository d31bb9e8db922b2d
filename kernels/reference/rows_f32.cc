// Products with single rows of float types: the reference. Contract: ops.h, rows_f32.
#include <cmath>

#include "kernels/levels.h"
#include "kernels/reference/weights.h"

namespace thermocline::kernels::reference {

void rows_f32(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const float* x,
              int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride) {
  for (int64_t i = 0; i < n_rows; ++i) {
    const uint8_t* row = w.rest + rows[i] * w.rest_bytes;
    for (int64_t t = 0; t < n_tokens; ++t) {
      float acc = 0.0f;
      for (int64_t k = 0; k < w.n_cols; ++k) {
        acc = std::fma(load_float(w.type, row, k), x[t * x_stride + k], acc);
      }
      out[t * out_stride + i] = acc;
    }
  }
}

}  // namespace thermocline::kernels::reference
