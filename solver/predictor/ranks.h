// How large the predictor of each layer may be, when all of them share a budget: layers that few
// neurons fire in, or the same ones always, need less (PowerInfer, arXiv 2312.12456, section 5.1,
// sizes its predictors by sparsity and skewness; here it is measured on the closed form).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "solver/predictor/closed_form.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

// Ranks are multiples of it: rows of fc2 are whole blocks of Q8_0 and Q4_0.
inline constexpr int64_t kRankStep = 32;

// What a rank costs and brings.
struct RankChoice {
  int64_t rank = 0;
  int64_t n_weights = 0;  // rank * (d_model + d_ff)
  double computed = 0;    // neurons a token, for the activation mass asked for
};

// One choice for each of `ranks`, ascending, none above start's: what the closed form cut to that
// rank computes, to keep the share `mass` of the activation mass, on samples [n_tokens, d_model]
// that it was not made from.
std::vector<RankChoice> MeasureRanks(const LowRank& start, MatrixView samples, MatrixView gate,
                                     double mass, const std::vector<int64_t>& ranks, int n_threads);

// For each layer the index of a choice, such that few neurons are computed in all and the sum of
// weights stays within the budget: from the smallest ranks up, each time the layer and the step
// that save the most neurons for a weight. InvalidArgument when the smallest ranks exceed it.
absl::StatusOr<std::vector<int64_t>> ChooseRanks(const std::vector<std::vector<RankChoice>>& layers,
                                                 int64_t budget_weights);

}  // namespace thermocline
