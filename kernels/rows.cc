// Packs file rows into streams and reads their values back (see rows.h).
#include "kernels/rows.h"

#include <cmath>
#include <cstring>

#include "common/gguf/half.h"
#include "common/util/check.h"
#include "kernels/file_block.h"
#include "kernels/reference/row_block.h"
#include "kernels/row_streams.h"

namespace thermocline::kernels {
namespace {

void store_u16(uint8_t* p, uint16_t v) { std::memcpy(p, &v, sizeof(v)); }

// One piece of a stream.
struct Piece {
  const RowStream& stream;
  uint8_t* data;
  int64_t n_blocks;
};

void store_quants(const Piece& piece, int64_t b, const FileBlock& block) {
  const Planes& planes = piece.stream.planes;
  uint8_t* plane = piece.data;
  for (int p = 0; p < planes.n; ++p) {
    const int width = planes.width[p];
    for (int i = 0; i < width; ++i) {
      const uint32_t dword = block.plane_dword(width, planes.position[p], i);
      std::memcpy(plane + 4 * (b * width + i), &dword, sizeof(dword));
    }
    plane += 4 * width * piece.n_blocks;
  }
}

void store_scales(const Piece& piece, int64_t b, const FileBlock& block) {
  if (!piece.stream.has_scales) return;
  uint8_t* scales = piece.data + piece.stream.quant_bytes(piece.n_blocks);
  uint8_t* of_super = scales + 2 * piece.n_blocks;
  switch (piece.stream.kind) {
    case ScaleKind::kOne:
      return store_u16(scales + 2 * b, block.d);
    case ScaleKind::kWithMinimum:
      scales[b] = block.sub[0];
      scales[piece.n_blocks + b] = block.sub[1];
      store_u16(of_super, block.d);
      return store_u16(of_super + 2, block.dmin);
    case ScaleKind::kTwo:
      std::memcpy(scales + 2 * b, block.sub, 2);
      return store_u16(of_super, block.d);
  }
}

}  // namespace

RowMatrix row_layout(TensorType type, int64_t n_rows, int64_t n_cols, int lead_bits) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n_rows >= 0 && n_cols >= 0);
  THERMOCLINE_CHECK(lead_bits >= 0 && lead_bits <= 3);
  RowMatrix m;
  m.type = type;
  m.n_rows = n_rows;
  m.n_cols = n_cols;
  m.lead_bits = lead_bits;
  if (info->is_float) {
    THERMOCLINE_CHECK(lead_bits == 0);
    m.rest_bytes = n_cols * info->block_bytes;
    return m;
  }
  THERMOCLINE_CHECK(n_cols % info->block_size == 0);
  const RowType row = row_type_of(type);
  m.rest_bytes = rest_stream(row, lead_bits).row_bytes(n_cols / kBlockCols);
  if (lead_bits > 0) m.lead_bytes = lead_stream(row, lead_bits).row_bytes(n_cols / kBlockCols);
  return m;
}

void pack_row(const RowMatrix& matrix, int64_t row, const uint8_t* file_row) {
  uint8_t* rest = const_cast<uint8_t*>(matrix.rest) + row * matrix.rest_bytes;
  if (type_info(matrix.type)->is_float) {
    std::memcpy(rest, file_row, static_cast<size_t>(matrix.rest_bytes));
    return;
  }
  uint8_t* lead = const_cast<uint8_t*>(matrix.lead) + row * matrix.lead_bytes;
  const RowType type = row_type_of(matrix.type);
  const RowStream rest_shape = rest_stream(type, matrix.lead_bits);
  const RowStream lead_shape = lead_stream(type, matrix.lead_bits);
  const bool is_sign = lead_is_sign(type, matrix.lead_bits);
  const int64_t n_blocks = matrix.n_cols / kBlockCols;
  double magnitude = 0;  // sum of |weight|
  for (int64_t first = 0; first < n_blocks; first += kPieceBlocks) {
    const int64_t n = n_blocks - first < kPieceBlocks ? n_blocks - first : kPieceBlocks;
    const Piece rest_piece = {rest_shape, rest, n}, lead_piece = {lead_shape, lead, n};
    for (int64_t b = 0; b < n; ++b) {
      FileBlock block = read_file_block(matrix.type, file_row, first + b);
      store_quants(rest_piece, b, block);
      store_scales(rest_piece, b, block);
      if (is_sign) {
        int64_t sum = 0;
        for (int k = 0; k < kBlockCols; ++k) {
          sum +=
              std::abs(static_cast<int>(block.chunk[k / 4] >> k % 4 * 8 & 255) - type.zero_point());
        }
        magnitude += std::fabs(f16_to_f32(block.d)) * static_cast<double>(sum);
        if (block.d >> 15 != 0) {  // a negative scale: what is above the zero point is negative
          for (uint32_t& chunk : block.chunk) chunk = ~chunk;
        }
      }
      if (matrix.lead_bits == 0) continue;
      store_quants(lead_piece, b, block);
      store_scales(lead_piece, b, block);
    }
    rest += rest_shape.piece_bytes(n);
    lead += lead_shape.piece_bytes(n);
  }
  if (is_sign) {
    const_cast<float*>(matrix.row_scale)[row] =
        static_cast<float>(magnitude / static_cast<double>(matrix.n_cols));
  }
}

void unpack_row(const RowMatrix& matrix, int64_t row, float* values) {
  if (type_info(matrix.type)->is_float) {
    const uint8_t* from = matrix.rest + row * matrix.rest_bytes;
    for (int64_t k = 0; k < matrix.n_cols; ++k) values[k] = load_float(matrix.type, from, k);
    return;
  }
  for (int64_t b = 0; b < matrix.n_cols / kBlockCols; ++b) {
    const RowBlock block = read_row_block(matrix, row, b);
    for (int k = 0; k < kBlockCols; ++k) values[b * kBlockCols + k] = block.value(k);
  }
}

}  // namespace thermocline::kernels
