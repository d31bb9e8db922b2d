// What active neurons add to the output: the reference. Contract: ops.h, add_rows, add_blocks.
#include "kernels/neurons.h"

#include <cmath>

#include "kernels/levels.h"
#include "kernels/reference/weights.h"

namespace thermocline::kernels::reference {
namespace {

// The quant of a row's column, the zero point taken off.
int32_t neuron_quant(const NeuronMatrix& w, int64_t row, int64_t col) {
  const RowType type = row_type_of(w.type);
  const Planes planes = planes_of(type.bits, 0);
  const uint8_t* plane = w.rows + row * w.row_bytes;
  uint32_t quant = 0;
  for (int p = 0; p < planes.n; ++p) {
    const int width = planes.width[p];
    const int64_t columns = 512 / width;
    const int64_t field = col % columns / 16;
    const uint8_t* dword = plane + col / columns * 64 + col % 16 * 4;
    const uint32_t bits = width == 8
                              ? plane[col]
                              : dword[field * width / 8] >> field * width % 8 & ((1 << width) - 1);
    quant |= bits << planes.position[p];
    plane += neuron_plane_bytes(width, w.n_cols);
  }
  return static_cast<int32_t>(quant) - type.zero_point();
}

float row_scale(const NeuronMatrix& w, int64_t row, int64_t col) {
  const Planes planes = planes_of(row_type_of(w.type).bits, 0);
  return load_f16(w.rows + row * w.row_bytes + neuron_quant_bytes(planes, w.n_cols) +
                  col / kBlockCols * 2);
}

// out plus the products of one block, for one column; the halves' sums are exact.
float add_block(const NeuronMatrix& w, const ActiveBlock& block, const int32_t sums[2], int64_t col,
                float out) {
  const uint8_t* plane = w.planes + block.block * w.plane_bytes;
  const int64_t n = w.n_cols;
  switch (row_type_of(w.type).scales) {
    case ScaleKind::kOne:
      return std::fma(static_cast<float>(sums[0] + sums[1]),
                      load_f16(plane + 2 * col) * block.scale, out);
    case ScaleKind::kWithMinimum: {
      const float scale = load_f16(plane + 2 * n + 2 * col) * plane[col];
      const float min = load_f16(plane + 4 * n + 2 * col) * plane[n + col];
      out = std::fma(static_cast<float>(sums[0] + sums[1]), scale * block.scale, out);
      return std::fma(-static_cast<float>(block.sum), min * block.scale, out);
    }
    case ScaleKind::kTwo: {
      const int32_t integer =
          static_cast<int8_t>(plane[col]) * sums[0] + static_cast<int8_t>(plane[n + col]) * sums[1];
      return std::fma(static_cast<float>(integer), load_f16(plane + 2 * n + 2 * col) * block.scale,
                      out);
    }
  }
  return out;
}

}  // namespace

void add_rows(const NeuronMatrix& w, const int32_t* rows, const float* a, int64_t n,
              int64_t col_begin, int64_t col_end, float* out) {
  const bool is_float = type_info(w.type)->is_float;
  for (int64_t col = col_begin; col < col_end; ++col) {
    float sum = out[col];
    for (int64_t i = 0; i < n; ++i) {
      sum = is_float ? std::fma(a[i], load_float(w.type, w.rows + rows[i] * w.row_bytes, col), sum)
                     : std::fma(a[i] * row_scale(w, rows[i], col),
                                static_cast<float>(neuron_quant(w, rows[i], col)), sum);
    }
    out[col] = sum;
  }
}

void add_blocks(const NeuronMatrix& w, const ActiveBlock* blocks, int64_t n_blocks,
                const int32_t* rows, const int8_t* q, int64_t col_begin, int64_t col_end,
                float* out) {
  for (int64_t col = col_begin; col < col_end; ++col) {
    float sum = out[col];
    for (int64_t b = 0; b < n_blocks; ++b) {
      int32_t sums[2] = {0, 0};
      for (int32_t i = blocks[b].begin; i < blocks[b].end; ++i) {
        sums[i >= blocks[b].middle] += q[i] * neuron_quant(w, rows[i], col);
      }
      sum = add_block(w, blocks[b], sums, col, sum);
    }
    out[col] = sum;
  }
}

}  // namespace thermocline::kernels::reference
