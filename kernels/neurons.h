// The layout of ffn_down by neurons: what each neuron adds to the output lies in one row of n_cols
// = d_model values, so that only active neurons are read. No arithmetic on activations (ops.h).
//
// A row's quants are planes of 4, 2, 1 or 8 bits, plane after plane, each in lines of 64 bytes, the
// last filled up with zeros. A line of b < 8 bits is 16 dwords of 512 / (16 b) columns each: field
// n of dword l belongs to column 16 n + l of the line's. Bytes lie in the order of columns. Quants
// are unsigned (row_streams.h: planes, zero point). Float types: rows in the order of columns.
//
// Where the scales lie depends on the file:
//   ffn_down_t (PowerInfer), [n_neurons, d_model]: a scale covers 32 columns of one neuron. They
//     follow the row's quants: f16 [n_cols / 32]. Q8_0, Q4_0, and float types, which have none.
//   ffn_down (all others), [d_model, n_neurons]: a scale covers 32 neurons of one column, so the
//     file's integers move and its scales stay beside them in planes, one a block of 32 neurons:
//       Q8_0, Q4_0   f16 d [n_cols]
//       Q4_K, Q5_K   u8 sub-scale [n_cols], u8 minimum [n_cols], f16 d [n_cols], f16 dmin [n_cols]
//       Q6_K         i8 sub-scale of the first 16 neurons [n_cols], of the last; f16 d [n_cols]
//     Nothing is rounded: products have the bits of the packed matrix.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"
#include "kernels/file_block.h"
#include "kernels/row_streams.h"

namespace thermocline::kernels {

inline constexpr int64_t kLineColumns = 128;  // of a 4-bit line; outputs are cut at multiples

struct NeuronMatrix {
  const uint8_t* rows = nullptr;    // [n_neurons, row_bytes]; 64-byte aligned
  const uint8_t* planes = nullptr;  // [n_blocks, plane_bytes]; null where scales are in the rows
  TensorType type = TensorType::kF32;
  bool has_planes = false;
  int64_t n_neurons = 0;  // that are here
  int64_t n_blocks = 0;   // of 32 neurons in the file, with one here
  int64_t n_cols = 0;     // a multiple of 32
  int64_t row_bytes = 0, plane_bytes = 0;

  int64_t n_bytes() const { return n_neurons * row_bytes + n_blocks * plane_bytes; }
};

// The bytes of one plane of a row.
constexpr int64_t neuron_plane_bytes(int width, int64_t n_cols) {
  return (n_cols * width + 511) / 512 * 64;
}
constexpr int64_t neuron_quant_bytes(const Planes& planes, int64_t n_cols) {
  int64_t n_bytes = 0;
  for (int p = 0; p < planes.n; ++p) n_bytes += neuron_plane_bytes(planes.width[p], n_cols);
  return n_bytes;
}

// Whether ffn_down_t of this type is computed here.
bool is_transposed_type(TensorType type);

// The shape; pointers are null. n_blocks is used where there are planes.
NeuronMatrix transposed_layout(TensorType type, int64_t n_neurons, int64_t n_cols);
NeuronMatrix neuron_layout(TensorType type, int64_t n_neurons, int64_t n_blocks, int64_t n_cols);

// The scales of one column [0, n_cols) of a block of 32 neurons, into that block's plane.
void pack_scale_column(TensorType type, int64_t n_cols, const FileBlock& from, int64_t col,
                       uint8_t* plane);

// Row `neuron` from a row of ffn_down_t in the file. The row must be zeros before.
void pack_transposed_row(const NeuronMatrix& matrix, int64_t neuron, const uint8_t* file_row);

// All that the matrix takes from file_block, a block of 32 columns of ffn_down: `file` points at
// its row 0, rows are file_row_bytes apart. neuron[i] is where column i of the block goes, or -1;
// `block` is the number of its planes. The rows must be zeros before.
void pack_neuron_block(const NeuronMatrix& matrix, int64_t block, const int32_t neuron[32],
                       const uint8_t* file, int64_t file_row_bytes, int64_t file_block);

}  // namespace thermocline::kernels
