// The layout in which weights lie in a shard, and how file rows are packed into it. No arithmetic
// on activations (ops.h).
//
// 16 rows make a group; inside a group values are interleaved so that lane r of a 512-bit register
// belongs to row r. Every output is then summed in ascending k by itself, which is the contract of
// numbers (README.md, "Numbers"), and one load brings 4 values of k for all 16 rows.
//
// A group of a float type is values [n_cols][16 rows]. A group of a quantized type is one stream,
// read from its first byte to its last (measured: a scale plane of its own, a second stream, costs
// a third of the bandwidth that a thread reaches): for each super-block its part, then its blocks'.
//
//             a block of 32 columns                                a super-block
//   Q8_0      quants     [8 chunks][16 rows][4 k] u8               -
//             scales     [16] f16
//   Q4_0      nibbles    [4 chunks][16 rows][4 k] u8               -
//             scales     [16] f16
//   Q4_K      nibbles    [4 chunks][16 rows][4 k] u8               d [16] f16, then dmin [16] f16
//             sub-scales [16] u8, then minimums [16] u8
//   Q5_K      nibbles    [4 chunks][16 rows][4 k] u8               as Q4_K
//             fifth bits [16 rows][4 k] u8
//             sub-scales [16] u8, then minimums [16] u8
//   Q6_K      nibbles    [4 chunks][16 rows][4 k] u8               d [16] f16
//             high bits  [2 chunks][16 rows][4 k] u8
//             sub-scales [16] i8 of k < 16, then [16] of k >= 16
//
// Byte i of chunk c and a row: quants are of k = 4c + i; nibbles of k = 4c + i (low) and 16 + 4c +
// i (high); bit j of the fifth bits of k = 4j + i; high bits 2j and 2j + 1 of k = 16c + 4j + i.
// Quants are stored unsigned, as VNNI wants them: the zero point (128 in Q8_0, 8 in Q4_0, 32 in
// Q6_K) times the sum of the activations is taken off the integer sum, exactly.
//
// A block is 32 columns for every quantized type, so a matrix can be cut at any 32 columns; a
// super-block is the file's 256, and `phase` says at which of its 8 blocks the cut begins: block b
// is of super-block (phase + b) / 8.
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
  int phase = 0;            // of the first 32 columns in their 256-block (K types), 0..7
  int64_t group_bytes = 0;  // a multiple of 64
  int64_t block_bytes = 0;  // of a block, 16 rows; 0 in float types
  int64_t super_bytes = 0;  // of a super-block's own part, 16 rows; 0 where there is none

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
