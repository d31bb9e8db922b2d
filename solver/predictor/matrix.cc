#include "solver/predictor/matrix.h"

#include <algorithm>

#include "solver/predictor/math.h"
#include "solver/predictor/parallel.h"

namespace thermocline {
namespace {

// Columns of a product that one part computes: the left factor is packed anew for each.
constexpr int64_t kPartCols = 512;
constexpr int64_t kPartRows = 256;

Matrix Multiply(const math::Factor& a, int64_t n_rows, MatrixView b, int n_threads) {
  const math::Math& math = math::math_of(kernels::detect_isa());
  Matrix c(n_rows, b.n_cols);
  const int64_t parts_across = (b.n_cols + kPartCols - 1) / kPartCols;
  const int64_t parts_down = (n_rows + kPartRows - 1) / kPartRows;
  ForParts(n_threads, parts_across * parts_down, [&](int64_t part) {
    const int64_t row = part / parts_across * kPartRows, col = part % parts_across * kPartCols;
    const math::Factor rows = {a.data + row * a.row_stride, a.row_stride, a.depth_stride};
    math.multiply(rows, b.data + col, b.n_cols, std::min(kPartRows, n_rows - row),
                  std::min(kPartCols, b.n_cols - col), b.n_rows, c.row(row) + col, c.n_cols);
  });
  return c;
}

}  // namespace

Matrix Transposed(MatrixView m) {
  constexpr int64_t kTile = 16;  // a line of the cache
  Matrix t(m.n_cols, m.n_rows);
  for (int64_t i = 0; i < m.n_rows; i += kTile) {
    for (int64_t j = 0; j < m.n_cols; ++j) {
      for (int64_t k = i; k < std::min(i + kTile, m.n_rows); ++k) t.row(j)[k] = m.row(k)[j];
    }
  }
  return t;
}

Matrix Product(MatrixView a, MatrixView b, int n_threads) {
  return Multiply({a.data, a.n_cols, 1}, a.n_rows, b, n_threads);
}

Matrix TransposedProduct(MatrixView a, MatrixView b, int n_threads) {
  return Multiply({a.data, 1, a.n_cols}, a.n_cols, b, n_threads);
}

}  // namespace thermocline
