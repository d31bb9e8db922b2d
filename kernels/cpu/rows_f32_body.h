// Products with single rows of float types, at any ISA level (ops.h, rows_f32): 16 rows side by
// side, turned so that lane r belongs to row r. Included after a level's I32x16 and F32x16, with
// THERMOCLINE_LEVEL its name.
#include "kernels/cpu/row_list.h"
#include "kernels/cpu/unroll.h"
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

constexpr int64_t kPieceColumns = 64;

template <TensorType kType>
constexpr int64_t kValueBytes = kType == TensorType::kF32 ? 4 : 2;

// Values of kPieceColumns columns (or of the n that are left) of 16 rows, [column][row].
template <TensorType kType>
void turn_floats(const uint8_t* const rows[16], int64_t n, float (*out)[16]) {
  constexpr int64_t kPerDword = 4 / kValueBytes<kType>;
  for (int64_t k = 0; k < n; k += 4 * kPerDword) {  // d_model is a multiple of 32
    I32x16 turned[4];
    transpose_rows(rows, k * kValueBytes<kType>, turned);
    THERMOCLINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      float(*at)[16] = out + k + i * kPerDword;
      if constexpr (kType == TensorType::kF32) {
        store(as_f32(turned[i]), at[0]);
      } else if constexpr (kType == TensorType::kF16) {
        store(f16_half<0>(turned[i]), at[0]);
        store(f16_half<1>(turned[i]), at[1]);
      } else {
        store(bf16_half<0>(turned[i]), at[0]);
        store(bf16_half<1>(turned[i]), at[1]);
      }
    }
  }
}

template <int T>
THERMOCLINE_INLINE void float_tile(const float (*values)[16], int64_t n, bool is_first,
                                   const float* x, int64_t x_stride, float* out,
                                   int64_t out_stride) {
  F32x16 acc[T];
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) acc[t] = is_first ? all_lanes(0.0f) : load(out + t * out_stride);
  for (int64_t k = 0; k < n; ++k) {
    const F32x16 weights = load(values[k]);
    THERMOCLINE_UNROLL
    for (int t = 0; t < T; ++t) acc[t] = fma(weights, all_lanes(x[t * x_stride + k]), acc[t]);
  }
  THERMOCLINE_UNROLL
  for (int t = 0; t < T; ++t) store(acc[t], out + t * out_stride);
}

template <TensorType kType>
void multiply_floats(const RowMatrix& w, const RowList& list, const float* x, int64_t x_stride,
                     int64_t n_tokens, float* out, int64_t out_stride) {
  constexpr int kTile = 8;
  alignas(64) float values[kPieceColumns][16];
  const uint8_t *rows[16], *next[16], *piece[16];
  for (int64_t i = 0; i < list.n; i += 16) {
    list.pointers(i, w.rest, w.rest_bytes, rows);
    list.pointers(i + 16 < list.n ? i + 16 : i, w.rest, w.rest_bytes, next);
    for (int64_t k = 0; k < w.n_cols; k += kPieceColumns) {
      const int64_t n = w.n_cols - k < kPieceColumns ? w.n_cols - k : kPieceColumns;
      for (int r = 0; r < 16; ++r) piece[r] = rows[r] + k * kValueBytes<kType>;
      turn_floats<kType>(piece, n, values);
      prefetch_rows(next, k * kValueBytes<kType>, n * kValueBytes<kType>);
      int64_t t = 0;
      for (; t + kTile <= n_tokens; t += kTile) {
        float_tile<kTile>(values, n, k == 0, x + t * x_stride + k, x_stride,
                          out + i + t * out_stride, out_stride);
      }
      for (; t < n_tokens; ++t) {
        float_tile<1>(values, n, k == 0, x + t * x_stride + k, x_stride, out + i + t * out_stride,
                      out_stride);
      }
    }
  }
}

}  // namespace

void rows_f32(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const float* x,
              int64_t x_stride, int64_t n_tokens, float* out, int64_t out_stride) {
  const RowList list = {rows, 0, n_rows};
  switch (w.type) {
    case TensorType::kF32:
      return multiply_floats<TensorType::kF32>(w, list, x, x_stride, n_tokens, out, out_stride);
    case TensorType::kF16:
      return multiply_floats<TensorType::kF16>(w, list, x, x_stride, n_tokens, out, out_stride);
    case TensorType::kBF16:
      return multiply_floats<TensorType::kBF16>(w, list, x, x_stride, n_tokens, out, out_stride);
    default:
      __builtin_trap();  // quantized rows take rows_int8
  }
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
