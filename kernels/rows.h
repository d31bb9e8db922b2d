// The layout of matrices of which single rows are read: the rows of a layer's gate and up that
// belong to active neurons. No arithmetic on activations (ops.h).
//
// A row is one stream of pieces, of 8 blocks (256 columns) each, the last of what is left. A piece
// holds the blocks' quants, cut into planes of 8, 4, 2 or 1 bits, plane after plane, and then their
// scales:
//
//   plane   a block of 32 columns takes         bits of k, with k = 4c + i
//   8 bits  8 dwords   byte i of dword c
//   4 bits  4 dwords   byte i of dword c % 4,   bits 4 (c / 4) and up
//   2 bits  2 dwords   byte i of dword c / 4,   bits 2 (c % 4) and up
//   1 bit   1 dword    byte i of it,            bit c
//
//   scales  Q8_0, Q4_0     f16 a block
//           Q4_K, Q5_K     u8 sub-scale a block, then u8 minimum a block, then f16 d, f16 dmin
//           Q6_K           two i8 sub-scales a block, then f16 d
//
// So the same dword of 16 rows, side by side, is what a packed group (packed.h) holds, and both
// give the same bits: blocks of k ascending, an exact integer sum in each.
//
// For a sketch a row's quants are split over two streams: `lead` has the top lead_bits of every
// quant, `rest` the others; together they are the file's. The scales lie with the lead, which needs
// them, but for 1 bit of Q8_0 and Q4_0: there the lead bit is the sign of the weight, clear where
// its f32 has the sign bit set (not always the quant's own top bit: a Q4_0 scale may be negative),
// and one scale serves the whole row.
//
// Float types: rows as in the file; they have no lead.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

inline constexpr int64_t kPieceBlocks = 8;

struct RowMatrix {
  const uint8_t* rest = nullptr;     // [n_rows, rest_bytes]; all of a row when lead_bits is 0
  const uint8_t* lead = nullptr;     // [n_rows, lead_bytes]
  const float* row_scale = nullptr;  // [n_rows], where the lead has no scales: mean |weight|
  TensorType type = TensorType::kF32;
  int lead_bits = 0;  // 0..3
  int64_t n_rows = 0;
  int64_t n_cols = 0;  // of a quantized type: a multiple of its block size
  int64_t rest_bytes = 0, lead_bytes = 0;

  int64_t n_bytes() const { return n_rows * (rest_bytes + lead_bytes); }
};

// Reads of a stream's last piece may pass its end by as much.
inline constexpr int64_t kRowPadding = 64;

// The shape of a matrix of whole rows of this type; pointers are null.
RowMatrix row_layout(TensorType type, int64_t n_rows, int64_t n_cols, int lead_bits);

// Writes row `row` of the matrix from a row of the file (all its columns), row_scale included.
void pack_row(const RowMatrix& matrix, int64_t row, const uint8_t* file_row);

// The values of a row, as ggml's dequantization gives them. [n_cols]
void unpack_row(const RowMatrix& matrix, int64_t row, float* values);

}  // namespace thermocline::kernels
