// Products with single rows, and sketches: the reference. Contract: ops.h, rows_int8, sketch_int8.
#include <cmath>

#include "kernels/levels.h"
#include "kernels/reference/row_block.h"

namespace thermocline::kernels::reference {
namespace {

// One token's activations of a block.
struct Input {
  const int8_t* q;
  float scale;
  int32_t sum;
};

Input input_of(const QuantizedRows& x, int64_t token, int64_t block) {
  const int64_t at = token * (x.stride / kBlockCols) + block;
  return {x.q + at * kBlockCols, x.scale[at], x.sum[at]};
}

float add_block(float acc, const RowBlock& w, const Input& x) {
  int32_t half_sums[2] = {0, 0};
  for (int k = 0; k < kBlockCols; ++k) half_sums[k / 16] += w.q[k] * x.q[k];
  const int32_t integer = w.sub_scale[0] * half_sums[0] + w.sub_scale[1] * half_sums[1];
  acc = std::fma(static_cast<float>(integer), w.scale * x.scale, acc);
  if (w.has_min) acc = std::fma(-static_cast<float>(x.sum), w.min * x.scale, acc);
  return acc;
}

// Twice the lead bits' middle values, around the zero point: 2 q + 1 - 2^lead_bits, or 2 q + 1
// where a minimum is taken off.
float add_sketch(float acc, const RowType& type, int lead_bits, const StreamBlock& lead,
                 const Input& x) {
  const int32_t middle = type.zero_point() == 0 ? 1 : 1 - (1 << lead_bits);
  RowBlock w = {{}, {1, 1}, 1.0f, 0.0f, false};
  int32_t half_sums[2] = {0, 0};
  for (int k = 0; k < kBlockCols; ++k) {
    const auto q = static_cast<int32_t>(lead.quant(k) >> (type.bits - lead_bits));
    half_sums[k / 16] += (2 * q + middle) * x.q[k];
  }
  if (lead_is_sign(type, lead_bits)) {
    return std::fma(static_cast<float>(half_sums[0] + half_sums[1]), x.scale, acc);
  }
  lead.read_scales(&w);
  const float half_step = static_cast<float>(1 << (type.bits - lead_bits)) * 0.5f;
  const int32_t integer = w.sub_scale[0] * half_sums[0] + w.sub_scale[1] * half_sums[1];
  acc = std::fma(static_cast<float>(integer), w.scale * half_step * x.scale, acc);
  if (w.has_min) {  // the middle of n values from q up is half of one below q plus half a step
    const float below = std::fma(w.scale, 0.5f, w.min);
    acc = std::fma(-static_cast<float>(x.sum), below * x.scale, acc);
  }
  return acc;
}

}  // namespace

void rows_int8(const RowMatrix& w, const int32_t* rows, int64_t n_rows, const QuantizedRows& x,
               int64_t n_tokens, float* out, int64_t out_stride) {
  for (int64_t i = 0; i < n_rows; ++i) {
    for (int64_t t = 0; t < n_tokens; ++t) out[t * out_stride + i] = 0.0f;
    for (int64_t b = 0; b < w.n_cols / kBlockCols; ++b) {
      const RowBlock block = read_row_block(w, rows[i], b);
      for (int64_t t = 0; t < n_tokens; ++t) {
        float& acc = out[t * out_stride + i];
        acc = add_block(acc, block, input_of(x, t, b));
      }
    }
  }
}

void sketch_int8(const RowMatrix& w, int64_t row_begin, int64_t row_end, const QuantizedRows& x,
                 int64_t n_tokens, float* out, int64_t out_stride) {
  const RowType type = row_type_of(w.type);
  const RowStream stream = lead_stream(type, w.lead_bits);
  const int64_t n_blocks = w.n_cols / kBlockCols;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float scale = lead_is_sign(type, w.lead_bits) ? w.row_scale[row] : 1.0f;
    for (int64_t t = 0; t < n_tokens; ++t) {
      float acc = 0.0f;
      for (int64_t b = 0; b < n_blocks; ++b) {
        const StreamBlock lead(stream, w.lead + row * w.lead_bytes, n_blocks, b);
        acc = add_sketch(acc, type, w.lead_bits, lead, input_of(x, t, b));
      }
      out[t * out_stride + row - row_begin] = acc * scale;
    }
  }
}

}  // namespace thermocline::kernels::reference
