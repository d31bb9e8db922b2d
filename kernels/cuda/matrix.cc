// Planes of a device matrix, and rows of a file into them.
#include "kernels/cuda/matrix.h"

#include <cstddef>
#include <cstring>

#include "kernels/file_block.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kSuperCols = 256;

int64_t Aligned(int64_t n_bytes) { return (n_bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The first 16 bytes of both: d, dmin, scales.
constexpr int64_t kHeaderBytes = 16;
static_assert(offsetof(BlockQ4_K, qs) == kHeaderBytes && offsetof(BlockQ5_K, qh) == kHeaderBytes);

// What is kept of the super-blocks that a row has a part of.
void PackSupers(const DeviceMatrix& layout, int64_t first_super, const uint8_t* file_row,
                uint8_t* scales, uint8_t* d) {
  const int64_t block_bytes = type_info(layout.type)->block_bytes;
  for (int64_t s = 0; s < layout.n_supers(); ++s) {
    const uint8_t* from = file_row + (first_super + s) * block_bytes;
    if (layout.type == TensorType::kQ6_K) {
      std::memcpy(scales + s * kHeaderBytes, from + offsetof(BlockQ6_K, scales), kHeaderBytes);
      std::memcpy(d + s * 2, from + offsetof(BlockQ6_K, d), 2);
    } else {
      std::memcpy(scales + s * kHeaderBytes, from, kHeaderBytes);
    }
  }
}

}  // namespace

DeviceRowBytes device_row_bytes(const DeviceMatrix& matrix) {
  const int64_t n_blocks = matrix.n_blocks(), n_supers = matrix.n_supers();
  switch (matrix.type) {
    case TensorType::kF32:
      return {.quants = 4 * matrix.n_cols};
    case TensorType::kF16:
    case TensorType::kBF16:
      return {.quants = 2 * matrix.n_cols};
    case TensorType::kQ8_0:
      return {.quants = 32 * n_blocks, .scales = 2 * n_blocks};
    case TensorType::kQ4_0:
      return {.quants = 16 * n_blocks, .scales = 2 * n_blocks};
    case TensorType::kQ4_K:
      return {.quants = 16 * n_blocks, .scales = kHeaderBytes * n_supers};
    case TensorType::kQ5_K:
      return {.quants = 16 * n_blocks, .high = 4 * n_blocks, .scales = kHeaderBytes * n_supers};
    case TensorType::kQ6_K:
      return {.quants = 16 * n_blocks,
              .high = 8 * n_blocks,
              .scales = kHeaderBytes * n_supers,
              .d = 2 * n_supers};
  }
  return {};
}

int64_t device_matrix_bytes(const DeviceMatrix& matrix) {
  const DeviceRowBytes row = device_row_bytes(matrix);
  return Aligned(row.quants * matrix.n_rows) + Aligned(row.high * matrix.n_rows) +
         Aligned(row.scales * matrix.n_rows) + Aligned(row.d * matrix.n_rows);
}

void place_device_matrix(const uint8_t* memory, DeviceMatrix* matrix) {
  const DeviceRowBytes row = device_row_bytes(*matrix);
  matrix->quants = memory;
  matrix->high = matrix->quants + Aligned(row.quants * matrix->n_rows);
  matrix->scales = matrix->high + Aligned(row.high * matrix->n_rows);
  matrix->d = matrix->scales + Aligned(row.scales * matrix->n_rows);
}

DeviceMatrix device_layout(TensorType type, int64_t n_rows, int64_t first_col, int64_t n_cols) {
  const bool has_supers = type_info(type)->block_size == kSuperCols;
  return {.type = type,
          .n_rows = n_rows,
          .n_cols = n_cols,
          .phase = has_supers ? static_cast<int32_t>(first_col % kSuperCols / 32) : 0};
}

void pack_device_row(const DeviceMatrix& layout, int64_t first_col, int64_t row,
                     const uint8_t* file_row, uint8_t* memory) {
  DeviceMatrix placed = layout;
  place_device_matrix(memory, &placed);
  const DeviceRowBytes bytes = device_row_bytes(layout);
  const auto at = [&](const uint8_t* plane, int64_t n_bytes) {
    return memory + (plane - memory) + row * n_bytes;
  };
  uint8_t* quants = at(placed.quants, bytes.quants);
  const TypeInfo* type = type_info(layout.type);
  if (type->is_float) {
    std::memcpy(quants, file_row + first_col * type->block_bytes,
                static_cast<size_t>(bytes.quants));
    return;
  }
  uint8_t* high = at(placed.high, bytes.high);
  uint8_t* scales = at(placed.scales, bytes.scales);
  const bool is_q8 = layout.type == TensorType::kQ8_0;
  const int64_t n_blocks = layout.n_blocks();
  for (int64_t b = 0; b < n_blocks; ++b) {
    const FileBlock block = read_file_block(layout.type, file_row, first_col / 32 + b);
    const int n_quants = is_q8 ? 8 : 4;
    for (int c = 0; c < n_quants; ++c) {
      const uint32_t dword = is_q8 ? block.chunk[c] ^ 0x80808080u : block.plane_dword(4, 0, c);
      std::memcpy(quants + (b * n_quants + c) * 4, &dword, 4);
    }
    const int width = layout.type == TensorType::kQ5_K ? 1 : 2;  // of the high bits
    const auto n_high = static_cast<int>(bytes.high / (4 * n_blocks));
    for (int c = 0; c < n_high; ++c) {
      const uint32_t dword = block.plane_dword(width, 4, c);
      std::memcpy(high + (b * n_high + c) * 4, &dword, 4);
    }
    if (type->block_size != kSuperCols) std::memcpy(scales + 2 * b, &block.d, 2);
  }
  if (type->block_size == kSuperCols) {
    PackSupers(layout, first_col / kSuperCols, file_row, scales, at(placed.d, bytes.d));
  }
}

}  // namespace thermocline::kernels
