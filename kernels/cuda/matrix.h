// How weights lie in device memory, and how a file's rows are brought into it on the host. No
// arithmetic on activations (device_ops.h), no device calls.
//
// A matrix is planes, each row after row, so that the lanes of a warp read 16 bytes each side by
// side:
//
//           quants, of a block of 32 columns      high bits        scales
//   F32, F16, BF16  the values themselves          -                -
//   Q8_0    32 x i8                                -                f16 a block
//   Q4_0    16 bytes of nibbles                    -                f16 a block
//   Q4_K    16 bytes of nibbles                    -                16 bytes a super-block of 256:
//   f16
//                                                                   d, f16 dmin, the file's 12
//                                                                   bytes of 6-bit scales and
//                                                                   minimums
//   Q5_K    16 bytes of nibbles                    4 bytes          as Q4_K
//   Q6_K    16 bytes of nibbles                    8 bytes          16 x i8 a super-block; in a
//   plane of
//                                                                   its own, f16 d a super-block
//
// Dword c (0..3) of the nibbles: byte i is k = 4c + i (low) and 16 + 4c + i (high). Bit j of byte i
// of the fifth bits is of k = 4j + i; bits 2j, 2j + 1 of byte i of dword c of Q6_K's high bits are
// of k = 16c + 4j + i. Nibbles are unsigned: the zero point times the sum of the activations is
// taken off. So a matrix takes the bytes it has in the file.
//
// Matrices are cut at any 32 columns, as packed.h has it: `phase` is the place of the first block
// in its super-block.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

// [n_rows, n_cols]. Planes begin at multiples of 256 bytes; a row of a plane at multiples of its
// element.
struct DeviceMatrix {
  const uint8_t* quants = nullptr;
  const uint8_t* high = nullptr;    // Q5_K, Q6_K
  const uint8_t* scales = nullptr;  // quantized types
  const uint8_t* d = nullptr;       // Q6_K
  TensorType type = TensorType::kF32;
  int64_t n_rows = 0;
  int64_t n_cols = 0;  // quantized: a multiple of 32; float: of 8
  int32_t phase = 0;   // 0..7

  int64_t n_blocks() const { return n_cols / 32; }
  int64_t n_supers() const { return (phase + n_blocks() + 7) / 8; }  // that a row has a part of
};

// Bytes of a row in each plane.
struct DeviceRowBytes {
  int64_t quants = 0, high = 0, scales = 0, d = 0;
};
DeviceRowBytes device_row_bytes(const DeviceMatrix& matrix);
// Of all planes, each rounded up to 256.
int64_t device_matrix_bytes(const DeviceMatrix& matrix);
// Sets the pointers of a matrix whose planes lie one after another at `memory`.
void place_device_matrix(const uint8_t* memory, DeviceMatrix* matrix);

// The shape of columns [first_col, first_col + n_cols) of a tensor of this type; pointers are null.
DeviceMatrix device_layout(TensorType type, int64_t n_rows, int64_t first_col, int64_t n_cols);
// Writes row `row` from a row of the file (all of its columns) to `memory`, the host's image of the
// matrix' device_matrix_bytes.
void pack_device_row(const DeviceMatrix& layout, int64_t first_col, int64_t row,
                     const uint8_t* file_row, uint8_t* memory);

}  // namespace thermocline::kernels
