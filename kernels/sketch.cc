// Rows to leads; what is not the lead is thrown away.
#include "kernels/sketch.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/gguf/half.h"
#include "kernels/packed.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kAlignment = 64;

int64_t Aligned(int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

int64_t LeadBytes(const RowMatrix& sketch) {
  return Aligned(sketch.n_rows * sketch.lead_bytes + kRowPadding);
}

void QuantizeRow(const float* values, int64_t n, uint8_t* to) {
  for (int64_t b = 0; b < n / kBlockCols; ++b) {
    const float* x = values + b * kBlockCols;
    float amax = 0.0f;
    for (int i = 0; i < kBlockCols; ++i) amax = std::max(amax, std::fabs(x[i]));
    BlockQ8_0 block;
    block.d = f32_to_f16(amax / 127.0f);
    const float scale = f16_to_f32(block.d);
    for (int i = 0; i < kBlockCols; ++i) {
      const float q = scale > 0.0f ? std::nearbyint(x[i] / scale) : 0.0f;
      block.qs[i] = static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
    }
    std::memcpy(to + b * static_cast<int64_t>(sizeof(block)), &block, sizeof(block));
  }
}

}  // namespace

RowMatrix sketch_layout(TensorType file_type, int64_t n_rows, int64_t n_cols, int lead_bits) {
  const bool is_float = type_info(file_type)->is_float;
  return row_layout(is_float ? TensorType::kQ8_0 : file_type, n_rows, n_cols, lead_bits);
}

int64_t sketch_bytes(const RowMatrix& sketch) {
  return LeadBytes(sketch) + sketch.n_rows * static_cast<int64_t>(sizeof(float));
}

void place_sketch(uint8_t* data, RowMatrix* sketch) {
  sketch->lead = data;
  sketch->row_scale = reinterpret_cast<const float*>(data + LeadBytes(*sketch));
}

SketchPacker::SketchPacker(const RowMatrix& sketch, TensorType file_type)
    : sketch_(sketch), file_type_(file_type), rest_(sketch.rest_bytes) {
  if (!type_info(file_type)->is_float) return;
  values_.resize(sketch.n_cols);
  blocks_.resize(sketch.n_cols / kBlockCols * sizeof(BlockQ8_0));
}

void SketchPacker::Pack(int64_t row, const uint8_t* file_row) {
  if (!values_.empty()) {
    RowMatrix whole = row_layout(file_type_, 1, sketch_.n_cols, 0);
    whole.rest = file_row;
    unpack_row(whole, 0, values_.data());
    QuantizeRow(values_.data(), sketch_.n_cols, blocks_.data());
    file_row = blocks_.data();
  }
  RowMatrix one = sketch_;  // this row alone
  one.rest = rest_.data();
  one.lead = sketch_.lead + row * sketch_.lead_bytes;
  one.row_scale = sketch_.row_scale + row;
  pack_row(one, 0, file_row);
}

}  // namespace thermocline::kernels
