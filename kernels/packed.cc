// Packs file rows into groups and reads their values back (see packed.h). Scalar; loading is bound
// by memory, and values are read back only where activations stay f32.
#include "kernels/packed.h"

#include <cstring>

#include "common/gguf/half.h"
#include "common/util/check.h"
#include "kernels/reference/packed_block.h"

namespace thermocline::kernels {
namespace {

// Bytes of a quantized type's parts for the 16 rows of a group. Adding a type starts here.
struct BlockShape {
  TensorType type;
  int64_t block_bytes;
  int64_t super_bytes;
};
constexpr BlockShape kBlockShapes[] = {
    {TensorType::kQ8_0, 512 + 32, 0},        {TensorType::kQ4_0, 256 + 32, 0},
    {TensorType::kQ4_K, 256 + 32, 64},       {TensorType::kQ5_K, 256 + 64 + 32, 64},
    {TensorType::kQ6_K, 256 + 128 + 32, 32},
};

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

uint32_t load_u32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
void store_u32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, sizeof(v)); }

// Each pack_* copies one row's part of a block: from the file's block (or super-block, with `sub`
// the number of its sub-block) to the group's block and super-block.
struct Destination {
  uint8_t* block;
  uint8_t* super;
  int row;
};

void pack_q8_0(const uint8_t* from, int sub, const Destination& to) {
  for (int c = 0; c < 8; ++c) {
    const uint32_t q = load_u32(from + offsetof(BlockQ8_0, qs) + 4 * c);
    store_u32(to.block + 64 * c + 4 * to.row, q ^ 0x80808080u);  // + 128 in each byte
  }
  std::memcpy(to.block + 512 + 2 * to.row, from + offsetof(BlockQ8_0, d), 2);
}

void pack_q4_0(const uint8_t* from, int sub, const Destination& to) {
  for (int c = 0; c < 4; ++c) {
    store_u32(to.block + 64 * c + 4 * to.row, load_u32(from + offsetof(BlockQ4_0, qs) + 4 * c));
  }
  std::memcpy(to.block + 256 + 2 * to.row, from + offsetof(BlockQ4_0, d), 2);
}

// The low (shift 0) or high (4) nibbles of 32 bytes as nibbles of 16: k below 16 low, others high.
void pack_nibbles(const uint8_t* from, int shift, const Destination& to) {
  for (int c = 0; c < 4; ++c) {
    const uint32_t first = load_u32(from + 4 * c) >> shift & 0x0f0f0f0fu;
    const uint32_t second = load_u32(from + 16 + 4 * c) >> shift & 0x0f0f0f0fu;
    store_u32(to.block + 64 * c + 4 * to.row, first | second << 4);
  }
}

// 6-bit scales and minimums of Q4_K and Q5_K, to bytes 16 apart: of sub-blocks 0..3 in bytes 0..3
// and 4..7, of 4..7 in the nibbles of bytes 8..11 and, their top 2 bits, in the top bits of bytes
// 0..7.
void pack_sub_scales(const uint8_t* s, int sub, uint8_t* sub_scales) {
  if (sub < 4) {
    sub_scales[0] = s[sub] & 63;
    sub_scales[16] = s[sub + 4] & 63;
  } else {
    sub_scales[0] = static_cast<uint8_t>((s[sub + 4] & 15) | s[sub - 4] >> 6 << 4);
    sub_scales[16] = static_cast<uint8_t>(s[sub + 4] >> 4 | s[sub] >> 6 << 4);
  }
}

void pack_q4_k(const uint8_t* from, int sub, const Destination& to) {
  pack_nibbles(from + offsetof(BlockQ4_K, qs) + sub / 2 * 32, sub % 2 * 4, to);
  pack_sub_scales(from + offsetof(BlockQ4_K, scales), sub, to.block + 256 + to.row);
  std::memcpy(to.super + 2 * to.row, from + offsetof(BlockQ4_K, d), 2);
  std::memcpy(to.super + 32 + 2 * to.row, from + offsetof(BlockQ4_K, dmin), 2);
}

void pack_q5_k(const uint8_t* from, int sub, const Destination& to) {
  pack_nibbles(from + offsetof(BlockQ5_K, qs) + sub / 2 * 32, sub % 2 * 4, to);
  uint32_t bits = 0;
  for (int j = 0; j < 8; ++j) {
    bits |= (load_u32(from + offsetof(BlockQ5_K, qh) + 4 * j) >> sub & 0x01010101u) << j;
  }
  store_u32(to.block + 256 + 4 * to.row, bits);
  pack_sub_scales(from + offsetof(BlockQ5_K, scales), sub, to.block + 320 + to.row);
  std::memcpy(to.super + 2 * to.row, from + offsetof(BlockQ5_K, d), 2);
  std::memcpy(to.super + 32 + 2 * to.row, from + offsetof(BlockQ5_K, dmin), 2);
}

void pack_q6_k(const uint8_t* from, int sub, const Destination& to) {
  // Sub-blocks 0..3 share 64 bytes of ql (32 bytes each for the even and the odd, low nibbles, then
  // high ones) and 32 of qh (2 bits each); 4..7 alike.
  pack_nibbles(from + offsetof(BlockQ6_K, ql) + sub / 4 * 64 + sub % 2 * 32, sub % 4 / 2 * 4, to);
  const uint8_t* qh = from + offsetof(BlockQ6_K, qh) + sub / 4 * 32;
  for (int c = 0; c < 2; ++c) {
    uint32_t bits = 0;
    for (int j = 0; j < 4; ++j) {
      bits |= (load_u32(qh + 16 * c + 4 * j) >> sub % 4 * 2 & 0x03030303u) << 2 * j;
    }
    store_u32(to.block + 256 + 64 * c + 4 * to.row, bits);
  }
  const uint8_t* scales = from + offsetof(BlockQ6_K, scales) + 2 * sub;
  to.block[384 + to.row] = scales[0];
  to.block[400 + to.row] = scales[1];
  std::memcpy(to.super + 2 * to.row, from + offsetof(BlockQ6_K, d), 2);
}

using PackBlock = void (*)(const uint8_t* from, int sub, const Destination& to);

PackBlock pack_block_of(TensorType type) {
  switch (type) {
    case TensorType::kQ8_0:
      return pack_q8_0;
    case TensorType::kQ4_0:
      return pack_q4_0;
    case TensorType::kQ4_K:
      return pack_q4_k;
    case TensorType::kQ5_K:
      return pack_q5_k;
    case TensorType::kQ6_K:
      return pack_q6_k;
    default:
      return nullptr;
  }
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

float float_value(const PackedMatrix& w, const uint8_t* values, int64_t index) {
  if (w.type == TensorType::kF32) {
    float value;
    std::memcpy(&value, values + 4 * index, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, values + 2 * index, sizeof(bits));
  return w.type == TensorType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
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
  const BlockShape* shape = nullptr;
  for (const BlockShape& s : kBlockShapes) {
    if (s.type == type) shape = &s;
  }
  THERMOCLINE_CHECK(shape != nullptr);
  m.block_bytes = shape->block_bytes;
  m.super_bytes = shape->super_bytes;
  const int64_t n_supers = (m.phase + m.n_blocks() + 7) / 8;
  m.group_bytes = round_up(m.n_blocks() * m.block_bytes + n_supers * m.super_bytes, 64);
  return m;
}

void pack_group(const PackedMatrix& layout, int64_t first_col, const uint8_t* const rows[16],
                uint8_t* group) {
  std::memset(group, 0, static_cast<size_t>(layout.group_bytes));
  if (layout.type == TensorType::kF32) return pack_floats<uint32_t>(layout, first_col, rows, group);
  const PackBlock pack_block = pack_block_of(layout.type);
  if (pack_block == nullptr) return pack_floats<uint16_t>(layout, first_col, rows, group);
  const TypeInfo* info = type_info(layout.type);
  const int64_t file_block_blocks = info->block_size / kBlockCols;  // 1, or 8 in a super-block
  for (int64_t b = 0; b < layout.n_blocks(); ++b) {
    const int64_t file_b = first_col / kBlockCols + b;
    const int64_t at = file_b / file_block_blocks * info->block_bytes;
    const int sub = static_cast<int>(file_b % file_block_blocks);
    uint8_t* block = group + block_offset(layout, b);
    uint8_t* super = group + super_offset(layout, b);
    for (int row = 0; row < kGroupRows; ++row) {
      if (rows[row] != nullptr) pack_block(rows[row] + at, sub, {block, super, row});
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
        values[k][row] = float_value(matrix, data, (first + k) * kGroupRows + row);
      }
    }
    return;
  }
  for (int row = 0; row < kGroupRows; ++row) {
    const RowBlock from = read_row_block(matrix, group, block, row);
    for (int k = 0; k < kBlockCols; ++k) {
      const float scale = from.scale * static_cast<float>(from.sub_scale[k / 16]);
      const float value = scale * static_cast<float>(from.q[k]);
      values[k][row] = from.has_min ? value - from.min : value;
    }
  }
}

}  // namespace thermocline::kernels
