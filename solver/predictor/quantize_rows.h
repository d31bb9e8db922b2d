// Turns f32 rows into blocks of the types that a predictor is written in. Reading them back is
// common/gguf/dequantize.h.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/tensor_type.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

struct QuantizedMatrix {
  TensorType type = TensorType::kF16;
  int64_t n_rows = 0, n_cols = 0;
  std::vector<uint8_t> bytes;  // row after row, as GGUF has them

  Matrix Dequantized() const;
};

// The type that the predictor of a model with gates of type `gate` has: itself where we can write
// it, Q4_0 for Q4_K, F16 for other floats, Q8_0 for the rest.
TensorType PredictorType(TensorType gate);

// Q8_0: d = amax / 127. Q4_0: d = (the value of largest magnitude) / -8, as ggml does. F16. Any
// other type, and columns that do not fill blocks, are InvalidArgument.
absl::StatusOr<QuantizedMatrix> QuantizeRows(MatrixView m, TensorType type);

}  // namespace thermocline
