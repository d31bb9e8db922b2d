// Values of GGUF blocks, one small function a type. Each product is formed in ggml's order, since
// bits must agree; block layouts are in tensor_type.h.
#include "common/gguf/dequantize.h"

#include <cstring>

#include "common/gguf/half.h"
#include "common/util/check.h"

namespace thermocline {
namespace {

void Values(float value, float* y) { *y = value; }

struct F16 {
  uint16_t bits;
};
void Values(const F16& value, float* y) { *y = f16_to_f32(value.bits); }

struct BF16 {
  uint16_t bits;
};
void Values(const BF16& value, float* y) { *y = bf16_to_f32(value.bits); }

void Values(const BlockQ4_0& block, float* y /* [32] */) {
  const float d = f16_to_f32(block.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((block.qs[j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((block.qs[j] >> 4) - 8) * d;
  }
}

void Values(const BlockQ8_0& block, float* y /* [32] */) {
  const float d = f16_to_f32(block.d);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(block.qs[j]) * d;
}

// Scale and minimum of sub-block j of 8: 6 bits each. The low 4 bits of the last four of each share
// bytes 8..11; their high 2 bits are the top bits of bytes 0..7.
void ScaleAndMin(const uint8_t* packed /* [12] */, int j, float* scale, float* min) {
  if (j < 4) {
    *scale = static_cast<float>(packed[j] & 63);
    *min = static_cast<float>(packed[j + 4] & 63);
  } else {
    *scale = static_cast<float>((packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4));
    *min = static_cast<float>((packed[j + 4] >> 4) | (packed[j] >> 6 << 4));
  }
}

void Values(const BlockQ4_K& block, float* y /* [256] */) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (int j = 0; j < 8; ++j) {
    float scale, min;
    ScaleAndMin(block.scales, j, &scale, &min);
    const float d_j = d * scale;
    const float min_j = dmin * min;
    const uint8_t* qs = block.qs + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int i = 0; i < 32; ++i) {
      y[32 * j + i] = d_j * static_cast<float>((qs[i] >> shift) & 15) - min_j;
    }
  }
}

void Values(const BlockQ5_K& block, float* y /* [256] */) {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (int j = 0; j < 8; ++j) {
    float scale, min;
    ScaleAndMin(block.scales, j, &scale, &min);
    const float d_j = d * scale;
    const float min_j = dmin * min;
    const uint8_t* qs = block.qs + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int i = 0; i < 32; ++i) {
      const int q = (qs[i] >> shift & 15) | (block.qh[i] >> j & 1) << 4;
      y[32 * j + i] = d_j * static_cast<float>(q) - min_j;
    }
  }
}

void Values(const BlockQ6_K& block, float* y /* [256] */) {
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    // Each half of 128 values has 64 bytes of ql, 32 of qh. Its four runs of 32 values take: the
    // low nibbles of ql[0..31], of ql[32..63], then the high nibbles; and bit pairs 0..3 of qh.
    const int half = i / 128, run = i / 32 % 4, j = i % 32;
    const int low = block.ql[64 * half + 32 * (run % 2) + j] >> (4 * (run / 2)) & 15;
    const int high = block.qh[32 * half + j] >> (2 * run) & 3;
    y[i] =
        d * static_cast<float>(block.scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
  }
}

template <typename Block, int64_t kBlockSize>
void Dequantize(const void* blocks, int64_t n, float* values) {
  const uint8_t* bytes = static_cast<const uint8_t*>(blocks);
  for (int64_t i = 0; i < n; i += kBlockSize, bytes += sizeof(Block)) {
    Block block;  // copied, since `blocks` need not be aligned
    std::memcpy(&block, bytes, sizeof(Block));
    Values(block, values + i);
  }
}

}  // namespace

void dequantize(TensorType type, const void* blocks, int64_t n, float* values) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n % info->block_size == 0);
  switch (type) {
    case TensorType::kF32:
      return Dequantize<float, 1>(blocks, n, values);
    case TensorType::kF16:
      return Dequantize<F16, 1>(blocks, n, values);
    case TensorType::kBF16:
      return Dequantize<BF16, 1>(blocks, n, values);
    case TensorType::kQ4_0:
      return Dequantize<BlockQ4_0, 32>(blocks, n, values);
    case TensorType::kQ8_0:
      return Dequantize<BlockQ8_0, 32>(blocks, n, values);
    case TensorType::kQ4_K:
      return Dequantize<BlockQ4_K, 256>(blocks, n, values);
    case TensorType::kQ5_K:
      return Dequantize<BlockQ5_K, 256>(blocks, n, values);
    case TensorType::kQ6_K:
      return Dequantize<BlockQ6_K, 256>(blocks, n, values);
  }
}

}  // namespace thermocline
