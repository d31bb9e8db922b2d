// Names and sizes of all tensor types that GGUF has numbers for, also of those that this engine
// does not compute with (those it does are in tensor_type.h).
#pragma once

#include <cstdint>
#include <string>

#include "common/gguf/tensor_type.h"

namespace thermocline {

// What counts and indices are stored in; nothing is computed with it.
inline constexpr TensorType kI32{26};

struct FormatType {
  uint32_t number;
  const char* name;      // as GGUF tools print it: "Q5_K"
  uint32_t block_size;   // values in a block
  uint32_t block_bytes;  // bytes of a block
};

// nullptr when the format has no such type.
const FormatType* format_type(TensorType type);

// "Q5_K", or "number 77" when the format has no such type.
std::string TensorTypeName(TensorType type);

}  // namespace thermocline
