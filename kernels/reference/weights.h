// Weights as every layout gives them to the reference kernels: blocks of 32 with their scales,
// single floats. How they lie in memory is told by packed_block.h and row_block.h. Not for ISA
// files.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/gguf/half.h"
#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

// 32 weights of a quantized type: weight k = (scale * sub_scale[k / 16]) * q[k] - min.
struct RowBlock {
  int32_t q[32];         // signed, the zero point taken off
  int32_t sub_scale[2];  // 1 but in Q6_K
  float scale;           // d, in Q4_K and Q5_K d * its 6-bit scale
  float min;             // Q4_K, Q5_K: dmin * its 6-bit minimum
  bool has_min;

  float value(int k) const {
    const float at_zero = scale * static_cast<float>(sub_scale[k / 16]);
    const float product = at_zero * static_cast<float>(q[k]);
    return has_min ? product - min : product;
  }
};

// acc plus 32 products with a block of activations; |integer| < 2^24 for every type, so its
// conversion to f32 is exact.
inline float add_block(float acc, const RowBlock& w, const int8_t* q, float scale, int32_t sum) {
  int32_t half_sums[2] = {0, 0};
  for (int k = 0; k < 32; ++k) half_sums[k / 16] += w.q[k] * q[k];
  const int32_t integer = w.sub_scale[0] * half_sums[0] + w.sub_scale[1] * half_sums[1];
  acc = std::fma(static_cast<float>(integer), w.scale * scale, acc);
  if (w.has_min) acc = std::fma(-static_cast<float>(sum), w.min * scale, acc);
  return acc;
}

inline float load_f16(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return f16_to_f32(bits);
}

// Value `index` of an array of a float type.
inline float load_float(TensorType type, const uint8_t* values, int64_t index) {
  if (type == TensorType::kF16) return load_f16(values + 2 * index);
  if (type == TensorType::kF32) {
    float value;
    std::memcpy(&value, values + 4 * index, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, values + 2 * index, sizeof(bits));
  return bf16_to_f32(bits);
}

}  // namespace thermocline::kernels
