// Packs ffn_down and ffn_down_t by neurons (see neurons.h).
#include "kernels/neurons.h"

#include <cstring>

#include "common/util/check.h"
#include "kernels/file_block.h"

namespace thermocline::kernels {
namespace {

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

Planes all_planes(TensorType type) { return planes_of(row_type_of(type).bits, 0); }

// One plane of a row out of a byte a column, quants [n_cols, stride].
void pack_plane(int width, int position, const uint8_t* quants, int64_t stride, int64_t first_col,
                int64_t end_col, uint8_t* plane) {
  if (width == 8) {
    for (int64_t c = first_col; c < end_col; ++c) plane[c] = quants[(c - first_col) * stride];
    return;
  }
  const int64_t columns = 512 / width;  // of a line
  const uint32_t mask = (1u << width) - 1;
  for (int64_t c = first_col; c < end_col; ++c) {
    const uint32_t bits = quants[(c - first_col) * stride] >> position & mask;
    const int64_t field = c % columns / 16;
    uint8_t* dword = plane + c / columns * 64 + c % 16 * 4;
    dword[field * width / 8] |= static_cast<uint8_t>(bits << field * width % 8);
  }
}

// Columns [first_col, end_col) of a row; quants as above. The row must have been zero.
void pack_quants(const NeuronMatrix& m, int64_t neuron, const uint8_t* quants, int64_t stride,
                 int64_t first_col, int64_t end_col) {
  uint8_t* plane = const_cast<uint8_t*>(m.rows) + neuron * m.row_bytes;
  const Planes planes = all_planes(m.type);
  for (int p = 0; p < planes.n; ++p) {
    pack_plane(planes.width[p], planes.position[p], quants, stride, first_col, end_col, plane);
    plane += neuron_plane_bytes(planes.width[p], m.n_cols);
  }
}

void unpack_quants(const FileBlock& block, uint8_t quants[32]) {
  std::memcpy(quants, block.chunk, 32);
}

void store_u16(uint8_t* p, uint16_t v) { std::memcpy(p, &v, sizeof(v)); }

}  // namespace

void pack_scale_column(TensorType type, int64_t n, const FileBlock& from, int64_t col,
                       uint8_t* plane) {
  switch (row_type_of(type).scales) {
    case ScaleKind::kOne:
      return store_u16(plane + 2 * col, from.d);
    case ScaleKind::kWithMinimum:
      plane[col] = from.sub[0];
      plane[n + col] = from.sub[1];
      store_u16(plane + 2 * n + 2 * col, from.d);
      return store_u16(plane + 4 * n + 2 * col, from.dmin);
    case ScaleKind::kTwo:
      plane[col] = from.sub[0];
      plane[n + col] = from.sub[1];
      return store_u16(plane + 2 * n + 2 * col, from.d);
  }
}

bool is_transposed_type(TensorType type) {
  const TypeInfo* info = type_info(type);
  return info != nullptr && (info->is_float || row_type_of(type).scales == ScaleKind::kOne);
}

NeuronMatrix transposed_layout(TensorType type, int64_t n_neurons, int64_t n_cols) {
  THERMOCLINE_CHECK(is_transposed_type(type) && n_cols % kBlockCols == 0);
  NeuronMatrix m;
  m.type = type;
  m.n_neurons = n_neurons;
  m.n_cols = n_cols;
  const TypeInfo* info = type_info(type);
  const int64_t n_bytes =
      info->is_float ? n_cols * info->block_bytes
                     : neuron_quant_bytes(all_planes(type), n_cols) + n_cols / kBlockCols * 2;
  m.row_bytes = round_up(n_bytes, 64);
  return m;
}

NeuronMatrix neuron_layout(TensorType type, int64_t n_neurons, int64_t n_blocks, int64_t n_cols) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n_cols % kBlockCols == 0);
  NeuronMatrix m;
  m.type = type;
  m.n_neurons = n_neurons;
  m.n_cols = n_cols;
  if (info->is_float) {
    m.row_bytes = round_up(n_cols * info->block_bytes, 64);
    return m;
  }
  m.has_planes = true;
  m.n_blocks = n_blocks;
  m.row_bytes = neuron_quant_bytes(all_planes(type), n_cols);
  const ScaleKind kind = row_type_of(type).scales;
  const int64_t a_column = kind == ScaleKind::kOne ? 2 : kind == ScaleKind::kTwo ? 4 : 6;
  m.plane_bytes = round_up(a_column * n_cols, 64);
  return m;
}

void pack_transposed_row(const NeuronMatrix& matrix, int64_t neuron, const uint8_t* file_row) {
  uint8_t* row = const_cast<uint8_t*>(matrix.rows) + neuron * matrix.row_bytes;
  const TypeInfo* info = type_info(matrix.type);
  if (info->is_float) {
    std::memcpy(row, file_row, static_cast<size_t>(matrix.n_cols * info->block_bytes));
    return;
  }
  uint8_t* scales = row + neuron_quant_bytes(all_planes(matrix.type), matrix.n_cols);
  for (int64_t b = 0; b < matrix.n_cols / kBlockCols; ++b) {
    const FileBlock block = read_file_block(matrix.type, file_row, b);
    uint8_t quants[kBlockCols];
    unpack_quants(block, quants);
    pack_quants(matrix, neuron, quants, 1, b * kBlockCols, (b + 1) * kBlockCols);
    store_u16(scales + 2 * b, block.d);
  }
}

void pack_neuron_block(const NeuronMatrix& matrix, int64_t block, const int32_t neuron[32],
                       const uint8_t* file, int64_t file_row_bytes, int64_t file_block) {
  const TypeInfo* info = type_info(matrix.type);
  if (info->is_float) {
    const auto size = static_cast<size_t>(info->block_bytes);
    for (int64_t col = 0; col < matrix.n_cols; ++col) {
      const uint8_t* from =
          file + col * file_row_bytes + file_block * kBlockCols * info->block_bytes;
      for (int i = 0; i < kBlockCols; ++i) {
        if (neuron[i] < 0) continue;
        uint8_t* row = const_cast<uint8_t*>(matrix.rows) + neuron[i] * matrix.row_bytes;
        std::memcpy(row + col * info->block_bytes, from + i * info->block_bytes, size);
      }
    }
    return;
  }
  for (int64_t first = 0; first < matrix.n_cols; first += kBlockCols) {
    uint8_t quants[kBlockCols][kBlockCols];  // [column][neuron]
    for (int64_t i = 0; i < kBlockCols; ++i) {
      const FileBlock from =
          read_file_block(matrix.type, file + (first + i) * file_row_bytes, file_block);
      unpack_quants(from, quants[i]);
      pack_scale_column(matrix.type, matrix.n_cols, from, first + i,
                        const_cast<uint8_t*>(matrix.planes) + block * matrix.plane_bytes);
    }
    for (int i = 0; i < kBlockCols; ++i) {
      if (neuron[i] < 0) continue;
      pack_quants(matrix, neuron[i], &quants[0][i], kBlockCols, first, first + kBlockCols);
    }
  }
}

}  // namespace thermocline::kernels
