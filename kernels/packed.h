// The layout in which weights lie in a shard, and how file rows are packed into it. No arithmetic
// on activations (ops.h).
//
// 16 rows make a group; inside a group values are interleaved so that lane r of a 512-bit register
// belongs to row r. Every output is then summed in ascending k by itself, which is the contract of
// numbers (README.md, "Numbers"), and one load brings 4 values of k for all 16 rows.
//
// A group's planes, in this order, each starting at a multiple of 64 bytes:
//   float types   values      [n_cols][16 rows]                        4 or 2 bytes each
//   Q8_0          quants      [n_blocks][8 chunks][16 rows][4 k] u8    stored + 128
//                 scales      [n_blocks][16] f16
//   Q4_0          quants      [n_blocks][4 chunks][16 rows][4] u8      low nibble k = 4c + i,
//                 scales      [n_blocks][16] f16                       high nibble k = 16 + 4c + i
//   Q4_K          quants      [n_blocks][4 chunks][16 rows][4] u8      as Q4_0
//                 sub-scales  [n_blocks][2][16] u8                     scale, then minimum
//                 scales      [n_supers][2][16] f16                    d, then dmin
//   Q6_K          low bits    [n_blocks][4 chunks][16 rows][4] u8      as Q4_0
//                 high bits   [n_blocks][2 chunks][16 rows][4] u8      2 bits for k = i + 4(4j + c),
//                                                                      shift 2j, c = chunk... see .cc
//                 sub-scales  [n_blocks][2][16] i8                     k < 16, then k >= 16
//                 scales      [n_supers][16] f16                       d
// A block is 32 columns here for every quantized type, so a matrix can be cut at any 32 columns; a
// super-block is the file's 256, and `phase` says at which of its 8 blocks the cut begins.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

inline constexpr int64_t kGroupRows = 16;
inline constexpr int64_t kBlockCols = 32;

// A matrix [n_rows, n_cols] packed; rows past n_rows in the last group are zeros.
struct PackedMatrix {
  const uint8_t* data = nullptr;  // 64-byte aligned, n_groups() * group_bytes
  TensorType type = TensorType::kF32;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int phase = 0;                  // of the first 32 columns in their 256-block (K types), 0..7
  int64_t group_bytes = 0;        // a multiple of 64
  int64_t plane[4] = {0, 0, 0, 0};  // byte offsets of the planes inside a group

  int64_t n_groups() const { return (n_rows + kGroupRows - 1) / kGroupRows; }
  int64_t n_blocks() const { return n_cols / kBlockCols; }
  int64_t n_bytes() const { return n_groups() * group_bytes; }
};

// The shape of columns [first_col, first_col + n_cols) of a tensor of this type; data is null.
// Quantized types need first_col and n_cols to be multiples of 32. n_rows may be 0.
PackedMatrix packed_layout(TensorType type, int64_t n_rows, int64_t first_col, int64_t n_cols);

// Packs one group. rows[i] points at the first byte of row i in the file (all of its columns), or
// is null for a row of zeros. Writes layout.group_bytes bytes at `group` (64-byte aligned).
void pack_group(const PackedMatrix& layout, int64_t first_col, const uint8_t* const rows[16],
                uint8_t* group);

// Values of block b (32 columns; for float types as many columns as are left, at most 32) of one
// group, as ggml's dequantization gives them. Used where activations stay f32.
void unpack_block(const PackedMatrix& matrix, int64_t group, int64_t block,
                  float values[32][16] /* [k][row] */);

}  // namespace thermocline::kernels
