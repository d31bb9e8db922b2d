// Reads one block out of a RowMatrix, a value at a time: what the reference kernels
// and unpack_row know of the layout (rows.h describes it). Not for ISA files.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/reference/weights.h"
#include "kernels/row_streams.h"

namespace thermocline::kernels {

// A block of one stream: where its piece is, and which block of the piece.
struct StreamBlock {
  RowStream stream;
  const uint8_t* piece;
  int64_t n_blocks;  // of the piece
  int64_t b;         // in the piece

  StreamBlock(const RowStream& s, const uint8_t* row, int64_t row_blocks, int64_t block)
      : stream(s), piece(row + block / kPieceBlocks * s.piece_bytes(kPieceBlocks)) {
    const int64_t left = row_blocks - block / kPieceBlocks * kPieceBlocks;
    n_blocks = left < kPieceBlocks ? left : kPieceBlocks;
    b = block % kPieceBlocks;
  }

  // The stream's bits of quant k, in their place.
  uint32_t quant(int k) const {
    const int c = k / 4, i = k % 4;
    const uint8_t* plane = piece;
    uint32_t value = 0;
    for (int p = 0; p < stream.planes.n; ++p) {
      const int width = stream.planes.width[p], per_dword = 8 / width;
      const int dword = width == 4 ? c % 4 : c / per_dword;
      const int shift = (width == 4 ? c / 4 : c % per_dword) * width;
      const uint32_t byte = plane[4 * (b * width + dword) + i];
      value |= (byte >> shift & ((1u << width) - 1)) << stream.planes.position[p];
      plane += 4 * width * n_blocks;
    }
    return value;
  }
  const uint8_t* scales() const { return piece + stream.quant_bytes(n_blocks); }

  // Everything of a RowBlock but the quants.
  void read_scales(RowBlock* block) const {
    const uint8_t* of_super = scales() + 2 * n_blocks;
    switch (stream.kind) {
      case ScaleKind::kOne:
        block->scale = load_f16(scales() + 2 * b);
        return;
      case ScaleKind::kWithMinimum:
        block->scale = load_f16(of_super) * scales()[b];
        block->min = load_f16(of_super + 2) * scales()[n_blocks + b];
        block->has_min = true;
        return;
      case ScaleKind::kTwo:
        block->scale = load_f16(of_super);
        for (int h = 0; h < 2; ++h) {
          block->sub_scale[h] = static_cast<int8_t>(scales()[2 * b + h]);
        }
        return;
    }
  }
};

inline RowBlock read_row_block(const RowMatrix& w, int64_t row, int64_t block) {
  const RowType type = row_type_of(w.type);
  const int64_t n_blocks = w.n_cols / kBlockCols;
  const StreamBlock rest(rest_stream(type, w.lead_bits), w.rest + row * w.rest_bytes, n_blocks,
                         block);
  const StreamBlock lead(lead_stream(type, w.lead_bits), w.lead + row * w.lead_bytes, n_blocks,
                         block);
  RowBlock out = {{}, {1, 1}, 0.0f, 0.0f, false};
  (rest.stream.has_scales ? rest : lead).read_scales(&out);
  const bool flip = lead_is_sign(type, w.lead_bits) && std::signbit(out.scale);
  for (int k = 0; k < kBlockCols; ++k) {
    uint32_t q = rest.quant(k);
    if (w.lead_bits > 0) q |= lead.quant(k) ^ (flip ? 1u << (type.bits - 1) : 0u);
    out.q[k] = static_cast<int32_t>(q) - type.zero_point();
  }
  return out;
}

}  // namespace thermocline::kernels
