// The best low-rank stand-in for a layer's gate in closed form: what training starts from, and what
// ranks are chosen by.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

// gate . x is about fc2 . (fc1 . x).
struct LowRank {
  Matrix fc1;  // [rank, d_model]
  Matrix fc2;  // [d_ff, rank]

  // The first `rank` directions: the best of that rank, too.
  LowRank Cut(int64_t rank) const;
};

// Minimises E|gate . x - fc2 . fc1 . x|^2 over the samples: the SVD of gate . L, truncated, with
// L . L^T the inputs' covariance. fc1 . x has unit covariance; directions come strongest first.
// samples [n_tokens, d_model] (inputs of the FFN), gate [d_ff, d_model]. The directions are
// found by iteration, from products of [d_model, d_model] matrices. InvalidArgument: rank outside
// [1, min(d_model, d_ff)], shapes that differ, numbers that are not finite.
absl::StatusOr<LowRank> ClosedForm(MatrixView samples, MatrixView gate, int64_t rank,
                                   int n_threads);

}  // namespace thermocline
