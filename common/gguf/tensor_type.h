// The element types of a GGUF tensor: numbers, names, block sizes, block structs. Header-only, no
// STL, so that kernels include it. Reading a block's values is in dequantize.h.
//
// Source of numbers and layouts: the GGUF specification and ggml's block formats (public).
#pragma once

#include <cstddef>
#include <cstdint>

namespace thermocline {

// Numbers are GGUF's; a file may hold any number, so validate with type_info() before use.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct TypeInfo {
  TensorType type;
  const char* name;      // as GGUF tools print it: "Q8_0"
  uint32_t block_size;   // values in a block
  uint32_t block_bytes;  // bytes of a block
  bool is_float;         // F32, F16, BF16: no scales
};

// All scales are IEEE f16 in their bit pattern, little-endian; all structs have no padding.
struct BlockQ4_0 {  // value[j] = d * ((qs[j] & 15) - 8), value[j + 16] = d * ((qs[j] >> 4) - 8)
  uint16_t d;
  uint8_t qs[16];
};
struct BlockQ8_0 {  // value[j] = d * qs[j]
  uint16_t d;
  int8_t qs[32];
};
struct BlockQ4_K {  // 8 sub-blocks of 32: value = d * sc[j] * q - dmin * m[j]
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];  // 8 scales and 8 mins of 6 bits
  uint8_t qs[128];     // sub-blocks 2i, 2i+1: low, high nibbles of bytes 32i..32i+31
};
struct BlockQ5_K {  // as Q4_K, with a fifth bit: of sub-block j in bit j of qh[i]
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
struct BlockQ6_K {  // 16 sub-blocks of 16: value = d * scales[j] * (q - 32)
  uint8_t ql[128];  // low 4 bits
  uint8_t qh[64];   // high 2 bits
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// One row per supported type: adding a type starts here.
inline constexpr TypeInfo kTensorTypes[] = {
    {TensorType::kF32, "F32", 1, 4, true},        {TensorType::kF16, "F16", 1, 2, true},
    {TensorType::kBF16, "BF16", 1, 2, true},      {TensorType::kQ4_0, "Q4_0", 32, 18, false},
    {TensorType::kQ8_0, "Q8_0", 32, 34, false},   {TensorType::kQ4_K, "Q4_K", 256, 144, false},
    {TensorType::kQ5_K, "Q5_K", 256, 176, false}, {TensorType::kQ6_K, "Q6_K", 256, 210, false},
};

// nullptr when the number names no type that this engine computes with.
constexpr const TypeInfo* type_info(TensorType type) {
  for (const TypeInfo& info : kTensorTypes) {
    if (info.type == type) return &info;
  }
  return nullptr;
}

}  // namespace thermocline
