// Products with single rows, and sketches: the reference. Contract: ops.h, rows_int8, sketch_int8.
#include "kernels/levels.h"
#include "kernels/reference/row_block.h"

namespace thermocline::kernels::reference {
namespace {

// acc plus the products of block b with a token's activations.
float add_product(float acc, const RowBlock& w, const QuantizedRows& x, int64_t token, int64_t b) {
  const int64_t at = token * (x.stride / kBlockCols) + b;
  return add_block(acc, w, x.q + at * kBlockCols, x.scale[at], x.sum[at]);
}

// The middle of the weights that the lead bits leave possible, as twice its quant and half the
// scale: of q .. q + 2^n - 1, twice the middle is 2 q + 2^n - 1. A sign is +-1.
RowBlock read_sketch_block(const RowType& type, int lead_bits, const StreamBlock& lead) {
  RowBlock block = {{}, {1, 1}, 1.0f, 0.0f, false};
  const bool is_sign = lead_is_sign(type, lead_bits);
  if (!is_sign) {
    lead.read_scales(&block);
    block.scale *= 0.5f;
  }
  const int twice_middle = (1 << (type.bits - lead_bits)) - 1 - 2 * type.zero_point();
  for (int k = 0; k < kBlockCols; ++k) {
    const auto q = static_cast<int32_t>(lead.quant(k));
    block.q[k] = is_sign ? (q != 0 ? 1 : -1) : 2 * q + twice_middle;
  }
  return block;
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
        acc = add_product(acc, block, x, t, b);
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
        acc = add_product(acc, read_sketch_block(type, w.lead_bits, lead), x, t, b);
      }
      out[t * out_stride + row - row_begin] = acc * scale;
    }
  }
}

}  // namespace thermocline::kernels::reference
