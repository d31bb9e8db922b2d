// Packs file rows into groups and reads their values back (see packed.h). Scalar; loading is bound
// by memory, and values are read back only where activations stay f32.
#include "kernels/packed.h"

#include <cstring>

#include "common/util/check.h"
#include "kernels/file_block.h"
#include "kernels/reference/packed_block.h"
#include "kernels/row_streams.h"

namespace thermocline::kernels {
namespace {

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Copies one row's block into the group's block and its part of the super-block.
void pack_block(const RowType& type, const FileBlock& from, int row, uint8_t* block,
                uint8_t* super) {
  const Planes planes = planes_of(type.bits, 0);
  uint8_t* to = block + 4 * row;
  for (int p = 0; p < planes.n; ++p) {
    for (int i = 0; i < planes.width[p]; ++i, to += 64) {
      const uint32_t dword = from.plane_dword(planes.width[p], planes.position[p], i);
      std::memcpy(to, &dword, sizeof(dword));
    }
  }
  uint8_t* scales = block + 64 * type.bits;
  if (type.scales == ScaleKind::kOne) {
    std::memcpy(scales + 2 * row, &from.d, 2);
    return;
  }
  scales[row] = from.sub[0];
  scales[16 + row] = from.sub[1];
  std::memcpy(super + 2 * row, &from.d, 2);
  if (type.scales == ScaleKind::kWithMinimum) std::memcpy(super + 32 + 2 * row, &from.dmin, 2);
}

template <class Value>
void pack_floats(const PackedMatrix& layout, int64_t first_col, const uint8_t* const rows[16],
                 uint8_t* group) {
  for (int row = 0; row < kGroupRows; ++row) {
    if (rows[row] == nullptr) continue;
    const uint8_t* from = rows[row] + first_col * static_cast<int64_t>(sizeof(Value));
    uint8_t* to = group + row * sizeof(Value);
    for (int64_t k = 0; k < layout.n_cols; ++k) {
      std::memcpy(to + k * kGroupRows * sizeof(Value), from + k * sizeof(Value), sizeof(Value));
    }
  }
}

}  // namespace

PackedMatrix packed_layout(TensorType type, int64_t n_rows, int64_t first_col, int64_t n_cols) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n_rows >= 0 && first_col >= 0 && n_cols >= 0);
  PackedMatrix m;
  m.type = type;
  m.n_rows = n_rows;
  m.n_cols = n_cols;
  if (info->is_float) {
    m.group_bytes = round_up(n_cols * kGroupRows * info->block_bytes, 64);
    return m;
  }
  THERMOCLINE_CHECK(first_col % kBlockCols == 0 && n_cols % kBlockCols == 0);
  m.phase = static_cast<int>(first_col / kBlockCols % 8);
  const RowType row = row_type_of(type);
  m.block_bytes = 64 * row.bits + 32;
  m.super_bytes = row.scales == ScaleKind::kOne ? 0 : row.scales == ScaleKind::kTwo ? 32 : 64;
  const int64_t n_supers = (m.phase + m.n_blocks() + 7) / 8;
  m.group_bytes = round_up(m.n_blocks() * m.block_bytes + n_supers * m.super_bytes, 64);
  return m;
}

void pack_group(const PackedMatrix& layout, int64_t first_col, const uint8_t* const rows[16],
                uint8_t* group) {
  std::memset(group, 0, static_cast<size_t>(layout.group_bytes));
  if (layout.type == TensorType::kF32) return pack_floats<uint32_t>(layout, first_col, rows, group);
  if (type_info(layout.type)->is_float)
    return pack_floats<uint16_t>(layout, first_col, rows, group);
  const RowType type = row_type_of(layout.type);
  for (int64_t b = 0; b < layout.n_blocks(); ++b) {
    uint8_t* block = group + block_offset(layout, b);
    uint8_t* super = group + super_offset(layout, b);
    for (int row = 0; row < kGroupRows; ++row) {
      if (rows[row] == nullptr) continue;
      const FileBlock from = read_file_block(layout.type, rows[row], first_col / kBlockCols + b);
      pack_block(type, from, row, block, super);
    }
  }
}

void unpack_block(const PackedMatrix& matrix, int64_t group, int64_t block, float values[32][16]) {
  if (type_info(matrix.type)->is_float) {
    const int64_t first = block * kBlockCols;
    const int64_t left = matrix.n_cols - first;
    const uint8_t* data = matrix.data + group * matrix.group_bytes;
    for (int64_t k = 0; k < (left < kBlockCols ? left : kBlockCols); ++k) {
      for (int row = 0; row < kGroupRows; ++row) {
        values[k][row] = load_float(matrix.type, data, (first + k) * kGroupRows + row);
      }
    }
    return;
  }
  for (int row = 0; row < kGroupRows; ++row) {
    const RowBlock from = read_row_block(matrix, group, block, row);
    for (int k = 0; k < kBlockCols; ++k) values[k][row] = from.value(k);
  }
}

}  // namespace thermocline::kernels
