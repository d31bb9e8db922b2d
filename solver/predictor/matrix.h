// Matrices of f32 as training passes them about (rows contiguous, plain data) and their products on
// several threads. No decompositions.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

// Points into somebody else's rows.
struct MatrixView {
  const float* data = nullptr;  // [n_rows, n_cols]
  int64_t n_rows = 0, n_cols = 0;

  const float* row(int64_t i) const { return data + i * n_cols; }
  // Rows [begin, end).
  MatrixView rows(int64_t begin, int64_t end) const { return {row(begin), end - begin, n_cols}; }
};

struct Matrix {
  int64_t n_rows = 0, n_cols = 0;
  std::vector<float> values;  // [n_rows, n_cols]

  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : n_rows(rows), n_cols(cols), values(rows * cols) {}
  float* row(int64_t i) { return values.data() + i * n_cols; }
  const float* row(int64_t i) const { return values.data() + i * n_cols; }
  MatrixView view() const { return {values.data(), n_rows, n_cols}; }
};

Matrix Transposed(MatrixView m);
// a [m, k] . b [k, n] -> [m, n]
Matrix Product(MatrixView a, MatrixView b, int n_threads);
// The transpose of a [k, m], times b [k, n] -> [m, n]
Matrix TransposedProduct(MatrixView a, MatrixView b, int n_threads);

}  // namespace thermocline
