// Matrices for the tests of packed weights: random rows as a file holds them, and the same packed
// at any cut. No judge of any op is here.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/gguf/half.h"
#include "common/gguf/tensor_type.h"
#include "kernels/packed.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {

// Rows [n_rows, n_file_cols] in the file's format, their integers random bytes, their scales a few
// thousandths of either sign, so that sums are of order 1.
struct FileRows {
  TensorType type;
  int64_t n_rows;
  int64_t row_bytes;
  std::vector<uint8_t> bytes;

  const uint8_t* row(int64_t i) const { return bytes.data() + i * row_bytes; }
};

inline void set_scale(uint8_t* at, std::mt19937& generator) {
  const uint16_t half = f32_to_f16(std::uniform_real_distribution<float>(-0.01f, 0.01f)(generator));
  std::memcpy(at, &half, sizeof(half));
}

inline FileRows random_rows(TensorType type, int64_t n_rows, int64_t n_cols, uint32_t seed) {
  const TypeInfo& info = *type_info(type);
  const int64_t row_bytes = n_cols / info.block_size * info.block_bytes;
  FileRows rows = {type, n_rows, row_bytes, std::vector<uint8_t>(n_rows * row_bytes)};
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (uint8_t& byte : rows.bytes) byte = static_cast<uint8_t>(generator());
  for (size_t at = 0; at < rows.bytes.size(); at += info.block_bytes) {
    uint8_t* block = rows.bytes.data() + at;
    const float value = normal(generator);
    const uint16_t half = f32_to_f16(value);
    switch (type) {
      case TensorType::kF32:
        std::memcpy(block, &value, sizeof(value));
        break;
      case TensorType::kF16:
        std::memcpy(block, &half, sizeof(half));
        break;
      case TensorType::kBF16:  // the upper half of an f32
        std::memcpy(block, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
        break;
      case TensorType::kQ4_0:
        set_scale(block + offsetof(BlockQ4_0, d), generator);
        break;
      case TensorType::kQ8_0:
        set_scale(block + offsetof(BlockQ8_0, d), generator);
        break;
      case TensorType::kQ4_K:
        set_scale(block + offsetof(BlockQ4_K, d), generator);
        set_scale(block + offsetof(BlockQ4_K, dmin), generator);
        break;
      case TensorType::kQ5_K:
        set_scale(block + offsetof(BlockQ5_K, d), generator);
        set_scale(block + offsetof(BlockQ5_K, dmin), generator);
        break;
      case TensorType::kQ6_K:
        set_scale(block + offsetof(BlockQ6_K, d), generator);
        break;
    }
  }
  return rows;
}

// Columns [first_col, first_col + n_cols) of the rows, packed; the last group ends where reading on
// is a fault.
struct Packed {
  PackedMatrix matrix;
  std::unique_ptr<AtPageEnd<uint8_t>> data;
};

inline Packed pack(const FileRows& rows, int64_t first_col, int64_t n_cols) {
  Packed packed;
  packed.matrix = packed_layout(rows.type, rows.n_rows, first_col, n_cols);
  PackedMatrix& m = packed.matrix;
  packed.data = std::make_unique<AtPageEnd<uint8_t>>(m.n_bytes());
  m.data = packed.data->data();
  for (int64_t group = 0; group < m.n_groups(); ++group) {
    const uint8_t* row_bytes[16];
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t row = group * 16 + i;
      row_bytes[i] = row < rows.n_rows ? rows.row(row) : nullptr;
    }
    pack_group(m, first_col, row_bytes, packed.data->data() + group * m.group_bytes);
  }
  return packed;
}

// int8 activations [n_tokens, n_cols] in memory that ends where they end, `gap` further elements
// between tokens.
struct Quantized {
  int64_t stride;
  AtPageEnd<int8_t> q;
  AtPageEnd<float> scale;
  AtPageEnd<int32_t> sum;

  Quantized(const std::vector<float>& x, int64_t n_tokens, int64_t n_cols, int64_t gap = 0)
      : stride(n_cols + gap),
        q(std::max<int64_t>(n_tokens * stride - gap, 0)),
        scale(std::max<int64_t>(n_tokens * stride - gap, 0) / kBlockCols),
        sum(std::max<int64_t>(n_tokens * stride - gap, 0) / kBlockCols) {
    for (int64_t t = 0; t < n_tokens; ++t) {
      const int64_t b = t * stride / kBlockCols;
      ops(Isa::kReference)
          .quantize(x.data() + t * n_cols, n_cols, q.data() + t * stride, scale.data() + b,
                    sum.data() + b);
    }
  }
  QuantizedRows rows() { return {q.data(), scale.data(), sum.data(), stride}; }
};

inline std::string type_name(const ::testing::TestParamInfo<TensorType>& info) {
  return type_info(info.param)->name;
}

inline std::vector<TensorType> all_types() {
  std::vector<TensorType> types;
  for (const TypeInfo& info : kTensorTypes) types.push_back(info.type);
  return types;
}

}  // namespace thermocline::kernels
