// The array functions of training on 16 lanes, products blocked for the caches. Included after a
// backend of F32x16, with THERMOCLINE_LEVEL its name and kTileRows, kTileVectors as many sums as
// fit its registers. No STL.
#include "kernels/cpu/exp_body.h"
#include "kernels/cpu/unroll.h"
#include "solver/predictor/math_levels.h"

namespace thermocline::math::THERMOCLINE_LEVEL {
namespace {

using kernels::F32x16;

constexpr int kTileCols = 16 * kTileVectors;
// Depth of a block: its panel of b (kBlockDepth x kTileCols f32, 32 KB at most) stays in the first
// level of cache, kBlockRows rows of a (128 KB) in the second.
constexpr int64_t kBlockDepth = 256;
constexpr int64_t kBlockRows = 10 * kTileRows;

// Rows of a, kTileRows at a time: [depth, kTileRows]; rows past the end are zeros.
void pack_rows(const float* a, int64_t row_stride, int64_t depth_stride, int64_t n_rows,
               int64_t depth, float* packed) {
  for (int64_t row = 0; row < n_rows; row += kTileRows) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t r = row; r < row + kTileRows; ++r) {
        *packed++ = r < n_rows ? a[r * row_stride + k * depth_stride] : 0.0f;
      }
    }
  }
}

// Columns of b: [depth, kTileCols]; columns past the end are zeros.
void pack_columns(const float* b, int64_t stride, int64_t n_cols, int64_t depth, float* packed) {
  for (int64_t k = 0; k < depth; ++k, b += stride) {
    for (int v = 0; v < kTileVectors; ++v, packed += 16) {
      const int64_t left = n_cols - 16 * v;
      kernels::store(left >= 16 ? kernels::load(b + 16 * v)
                     : left > 0 ? kernels::load_first(b + 16 * v, left)
                                : kernels::all_lanes(0.0f),
                     packed);
    }
  }
}

// c [n_rows, n_cols], at most one tile, += packed rows . packed columns.
void add_tile(const float* rows, const float* columns, int64_t depth, int64_t n_rows,
              int64_t n_cols, float* c, int64_t stride) {
  F32x16 sum[kTileRows][kTileVectors];
  THERMOCLINE_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    THERMOCLINE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = kernels::all_lanes(0.0f);
  }
  for (int64_t k = 0; k < depth; ++k, rows += kTileRows, columns += kTileCols) {
    F32x16 column[kTileVectors];
    THERMOCLINE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) column[v] = kernels::load(columns + 16 * v);
    THERMOCLINE_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      const F32x16 row = kernels::all_lanes(rows[r]);
      THERMOCLINE_UNROLL
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = kernels::fma(row, column[v], sum[r][v]);
    }
  }
  THERMOCLINE_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    if (r >= n_rows) break;
    THERMOCLINE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) {
      float* to = c + r * stride + 16 * v;
      const int64_t left = n_cols - 16 * v;
      if (left >= 16) {
        kernels::store(kernels::load(to) + sum[r][v], to);
      } else if (left > 0) {
        kernels::store_first(kernels::load_first(to, left) + sum[r][v], to, left);
      }
    }
  }
}

}  // namespace

void multiply(const Factor& a, const float* b, int64_t b_stride, int64_t n_rows, int64_t n_cols,
              int64_t depth, float* c, int64_t c_stride) {
  alignas(64) float rows[kBlockRows * kBlockDepth];
  alignas(64) float columns[kTileCols * kBlockDepth];
  for (int64_t k = 0; k < depth; k += kBlockDepth) {
    const int64_t n_k = depth - k < kBlockDepth ? depth - k : kBlockDepth;
    for (int64_t i = 0; i < n_rows; i += kBlockRows) {
      const int64_t n_i = n_rows - i < kBlockRows ? n_rows - i : kBlockRows;
      pack_rows(a.data + i * a.row_stride + k * a.depth_stride, a.row_stride, a.depth_stride, n_i,
                n_k, rows);
      for (int64_t j = 0; j < n_cols; j += kTileCols) {
        const int64_t n_j = n_cols - j;
        pack_columns(b + k * b_stride + j, b_stride, n_j, n_k, columns);
        for (int64_t r = 0; r < n_i; r += kTileRows) {
          add_tile(rows + r * n_k, columns, n_k, n_i - r, n_j, c + (i + r) * c_stride + j,
                   c_stride);
        }
      }
    }
  }
}

void logistic_slope(float* score, const uint16_t* activation, float scale, int64_t n) {
  const F32x16 one = kernels::all_lanes(1.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t left = n - i < 16 ? n - i : 16;
    const F32x16 s = kernels::load_first(score + i, left);
    const F32x16 p = one / (one + kernels::exp(kernels::negate(s)));
    const F32x16 cost = kernels::load_first(activation + i, left) * kernels::all_lanes(scale);
    kernels::store_first(where_positive(cost, cost * (p - one), p), score + i, left);
  }
}

// A plain loop: the compiler makes of it what can be made.
void adam(float* weight, float* mean, float* square, const float* slope, const AdamStep& step,
          int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    mean[i] += step.mean_share * (slope[i] - mean[i]);
    square[i] += step.square_share * (slope[i] * slope[i] - square[i]);
    weight[i] -= step.rate * step.mean_scale * mean[i] /
                 (__builtin_sqrtf(step.square_scale * square[i]) + kAdamFloor);
  }
}

}  // namespace thermocline::math::THERMOCLINE_LEVEL
