// How the streams of a RowMatrix are made up, as constants: what packing, the reference and the ISA
// levels share. Constexpr functions only, no STL. The layout: rows.h.
#pragma once

#include <cstdint>

#include "kernels/packed.h"
#include "kernels/rows.h"

namespace thermocline::kernels {

enum class ScaleKind { kOne, kWithMinimum, kTwo };  // of a block: Q8_0, Q4_0; Q4_K, Q5_K; Q6_K

struct RowType {
  TensorType type;
  int bits;  // of a quant
  ScaleKind scales;
  // Quants are stored unsigned: this is what stands for 0. 0 where a minimum is taken off.
  constexpr int zero_point() const {
    return scales == ScaleKind::kWithMinimum ? 0 : 1 << (bits - 1);
  }
};
inline constexpr RowType kRowTypes[] = {
    {TensorType::kQ8_0, 8, ScaleKind::kOne},
    {TensorType::kQ4_0, 4, ScaleKind::kOne},
    {TensorType::kQ4_K, 4, ScaleKind::kWithMinimum},
    {TensorType::kQ5_K, 5, ScaleKind::kWithMinimum},
    {TensorType::kQ6_K, 6, ScaleKind::kTwo},
};

// No bits where a type has no blocks.
constexpr RowType row_type_of(TensorType type) {
  for (const RowType& row : kRowTypes) {
    if (row.type == type) return row;
  }
  return {};
}

// `bits` bits of a quant from bit `base` up, as planes from the lowest bits on.
struct Planes {
  int n = 0;
  int width[3] = {};
  int position[3] = {};  // of the plane's lowest bit in the quant
  int bits = 0;
};
constexpr Planes planes_of(int bits, int base) {
  Planes planes;
  planes.bits = bits;
  for (int width = 8; width >= 1; width /= 2) {
    if (bits < width) continue;
    planes.width[planes.n] = width;
    planes.position[planes.n++] = base;
    base += width;
    bits -= width;
  }
  return planes;
}

// One stream of a type's rows.
struct RowStream {
  Planes planes;
  ScaleKind kind = ScaleKind::kOne;
  bool has_scales = false;

  constexpr int64_t quant_bytes(int64_t n_blocks) const { return 4 * planes.bits * n_blocks; }
  constexpr int64_t scale_bytes(int64_t n_blocks) const {
    if (!has_scales) return 0;
    const int64_t of_super = kind == ScaleKind::kOne ? 0 : kind == ScaleKind::kTwo ? 2 : 4;
    return 2 * n_blocks + of_super;
  }
  constexpr int64_t piece_bytes(int64_t n_blocks) const {
    return quant_bytes(n_blocks) + scale_bytes(n_blocks);
  }
  constexpr int64_t row_bytes(int64_t n_blocks) const {
    const int64_t left = n_blocks % kPieceBlocks;
    return n_blocks / kPieceBlocks * piece_bytes(kPieceBlocks) + (left > 0 ? piece_bytes(left) : 0);
  }
};

// Whether the lead is a sign with one scale a row.
constexpr bool lead_is_sign(const RowType& type, int lead_bits) {
  return lead_bits == 1 && type.scales == ScaleKind::kOne;
}
constexpr RowStream lead_stream(const RowType& type, int lead_bits) {
  return {planes_of(lead_bits, type.bits - lead_bits), type.scales,
          lead_bits > 0 && !lead_is_sign(type, lead_bits)};
}
constexpr RowStream rest_stream(const RowType& type, int lead_bits) {
  return {planes_of(type.bits - lead_bits, 0), type.scales,
          lead_bits == 0 || lead_is_sign(type, lead_bits)};
}

}  // namespace thermocline::kernels
