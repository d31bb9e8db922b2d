// Reads one block of 32 columns of a quantized row as it lies in a file. For packing; the block
// structs are tensor_type.h's.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

struct FileBlock {
  uint32_t chunk[8];  // byte i of chunk c: the quant of k = 4c + i, unsigned
  uint16_t d, dmin;   // f16; of the super-block in K types; dmin only where there is a minimum
  // Q4_K, Q5_K: the 6-bit scale, the 6-bit minimum; Q6_K: the two i8 scales.
  uint8_t sub[2];

  // Dword i of a plane of the quants' bits from `position` up, `width` of them: rows.h tells how
  // planes are made up. A packed group has the same dwords.
  uint32_t plane_dword(int width, int position, int i) const;
};

// Block b of a row (its first byte is `row`).
FileBlock read_file_block(TensorType type, const uint8_t* row, int64_t b);

}  // namespace thermocline::kernels
