// Values of GGUF blocks as f32, bit for bit as ggml's reference dequantization gives them. Scalar;
// used for embedding rows, norms and by tests. Products with packed weights are in kernels/.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline {

// Writes n values (a multiple of the type's block size) read from `blocks` (no alignment needed).
void dequantize(TensorType type, const void* blocks, int64_t n, float* values /* [n] */);

}  // namespace thermocline
