#include "solver/predictor/quantize_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/gguf/dequantize.h"
#include "common/gguf/format_types.h"
#include "common/gguf/half.h"

namespace thermocline {
namespace {

constexpr int64_t kBlock = 32;

float LargestByMagnitude(const float* x) {
  return *std::max_element(x, x + kBlock,
                           [](float a, float b) { return std::abs(a) < std::abs(b); });
}

void Quantize(const float* x, BlockQ8_0* block) {
  block->d = f32_to_f16(std::abs(LargestByMagnitude(x)) / 127);
  const float d = f16_to_f32(block->d);
  for (int64_t i = 0; i < kBlock; ++i) {
    const float q = d == 0 ? 0 : std::nearbyint(x[i] / d);
    block->qs[i] = static_cast<int8_t>(std::clamp(q, -127.0f, 127.0f));
  }
}

void Quantize(const float* x, BlockQ4_0* block) {
  block->d = f32_to_f16(LargestByMagnitude(x) / -8);
  const float d = f16_to_f32(block->d);
  const auto level = [&](float value) {
    const float q = d == 0 ? 8 : std::floor(value / d + 8.5f);
    return static_cast<uint8_t>(std::clamp(q, 0.0f, 15.0f));
  };
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    block->qs[i] = static_cast<uint8_t>(level(x[i]) | level(x[i + kBlock / 2]) << 4);
  }
}

template <typename Block>
void QuantizeBlocks(MatrixView m, uint8_t* bytes) {
  for (int64_t i = 0; i < m.n_rows * m.n_cols; i += kBlock, bytes += sizeof(Block)) {
    Block block;
    Quantize(m.data + i, &block);
    std::memcpy(bytes, &block, sizeof(Block));
  }
}

void RoundToHalf(MatrixView m, uint8_t* bytes) {
  for (int64_t i = 0; i < m.n_rows * m.n_cols; ++i) {
    const uint16_t half = f32_to_f16(m.data[i]);
    std::memcpy(bytes + 2 * i, &half, sizeof(half));
  }
}

}  // namespace

Matrix QuantizedMatrix::Dequantized() const {
  Matrix m(n_rows, n_cols);
  dequantize(type, bytes.data(), n_rows * n_cols, m.values.data());
  return m;
}

TensorType PredictorType(TensorType gate) {
  switch (gate) {
    case TensorType::kQ4_0:
    case TensorType::kQ4_K:
      return TensorType::kQ4_0;
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return TensorType::kF16;
    default:
      return TensorType::kQ8_0;
  }
}

absl::StatusOr<QuantizedMatrix> QuantizeRows(MatrixView m, TensorType type) {
  const TypeInfo* info = type_info(type);
  const bool known =
      type == TensorType::kQ8_0 || type == TensorType::kQ4_0 || type == TensorType::kF16;
  if (!known || m.n_cols % info->block_size != 0) {
    return absl::InvalidArgumentError(
        fmt::format("a predictor's rows of {} cannot be written as {}; use Q8_0 or Q4_0 (rows of "
                    "whole blocks of 32) or F16",
                    m.n_cols, TensorTypeName(type)));
  }
  QuantizedMatrix quantized = {type, m.n_rows, m.n_cols, {}};
  quantized.bytes.resize(m.n_rows * m.n_cols / info->block_size * info->block_bytes);
  switch (type) {
    case TensorType::kQ8_0:
      QuantizeBlocks<BlockQ8_0>(m, quantized.bytes.data());
      break;
    case TensorType::kQ4_0:
      QuantizeBlocks<BlockQ4_0>(m, quantized.bytes.data());
      break;
    default:
      RoundToHalf(m, quantized.bytes.data());
  }
  return quantized;
}

}  // namespace thermocline
