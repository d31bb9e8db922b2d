// A small FFN gate and inputs for it, in which firing is rare and a low rank decides most of it.
#pragma once

#include <cstdint>

#include "solver/predictor/matrix.h"

namespace thermocline::testing {

struct SyntheticLayer {
  Matrix samples;  // [n_tokens, d_model]
  Matrix gate;     // [d_ff, d_model]
};

// Inputs whose variance falls from direction to direction, over a constant part that keeps most
// gates below 0, as a trained model's do.
SyntheticLayer MakeSyntheticLayer(int64_t n_tokens, int64_t d_model, int64_t d_ff, uint64_t seed);

// Numbers of a normal distribution, mean 0, spread 1.
Matrix RandomMatrix(int64_t n_rows, int64_t n_cols, uint64_t seed);

}  // namespace thermocline::testing
