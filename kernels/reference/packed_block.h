// Reads one row's block out of a packed group, one value at a time: what the reference kernels and
// unpack_block know of the layout (packed.h describes it). Not for ISA files.
#pragma once

#include <cstdint>

#include "kernels/packed.h"
#include "kernels/reference/weights.h"

namespace thermocline::kernels {

// Where block b, and the own part of its super-block, lie in a group.
inline int64_t block_offset(const PackedMatrix& w, int64_t b) {
  return b * w.block_bytes + ((w.phase + b) / 8 + 1) * w.super_bytes;
}
inline int64_t super_offset(const PackedMatrix& w, int64_t b) {
  const int64_t super = (w.phase + b) / 8;
  const int64_t blocks_before = super == 0 ? 0 : super * 8 - w.phase;
  return blocks_before * w.block_bytes + super * w.super_bytes;
}

inline RowBlock read_row_block(const PackedMatrix& w, int64_t group, int64_t b, int row) {
  RowBlock block = {{}, {1, 1}, 0.0f, 0.0f, false};
  const uint8_t* group_data = w.data + group * w.group_bytes;
  const uint8_t* from = group_data + block_offset(w, b);
  const uint8_t* super = group_data + super_offset(w, b) + 2 * row;
  const bool is_byte = w.type == TensorType::kQ8_0;
  for (int k = 0; k < 32; ++k) {
    const uint8_t* chunk = from + 64 * ((is_byte ? k : k % 16) / 4) + 4 * row;
    block.q[k] = is_byte ? chunk[k % 4] : chunk[k % 4] >> (k / 16 * 4) & 15;
  }
  int zero_point = 0;
  switch (w.type) {
    case TensorType::kQ8_0:
      zero_point = 128;
      block.scale = load_f16(from + 512 + 2 * row);
      break;
    case TensorType::kQ4_0:
      zero_point = 8;
      block.scale = load_f16(from + 256 + 2 * row);
      break;
    case TensorType::kQ4_K:
      block.scale = load_f16(super) * from[256 + row];
      block.min = load_f16(super + 32) * from[272 + row];
      block.has_min = true;
      break;
    case TensorType::kQ5_K:
      for (int k = 0; k < 32; ++k) {
        block.q[k] |= (from[256 + 4 * row + k % 4] >> k / 4 & 1) << 4;
      }
      block.scale = load_f16(super) * from[320 + row];
      block.min = load_f16(super + 32) * from[336 + row];
      block.has_min = true;
      break;
    case TensorType::kQ6_K:
      zero_point = 32;
      for (int k = 0; k < 32; ++k) {
        const uint8_t* high = from + 256 + 64 * (k / 16) + 4 * row;
        block.q[k] |= (high[k % 4] >> (k % 16 / 4 * 2) & 3) << 4;
      }
      block.sub_scale[0] = static_cast<int8_t>(from[384 + row]);
      block.sub_scale[1] = static_cast<int8_t>(from[400 + row]);
      block.scale = load_f16(super);
      break;
    default:
      break;  // float types have no blocks
  }
  for (int32_t& q : block.q) q -= zero_point;
  return block;
}

}  // namespace thermocline::kernels
