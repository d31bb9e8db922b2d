#include "solver/predictor/ranks.h"

#include <fmt/format.h>

#include "solver/predictor/calibrate.h"

namespace thermocline {
namespace {

struct Upgrade {
  size_t layer = 0;
  int64_t choice = -1;  // -1: none
  double saved_per_weight = 0;
};

// The best step of one layer from its choice at hand.
Upgrade BestUpgrade(const std::vector<RankChoice>& choices, size_t layer, int64_t from,
                    int64_t weights_left) {
  Upgrade best;
  for (int64_t to = from + 1; to < std::ssize(choices); ++to) {
    const int64_t more = choices[to].n_weights - choices[from].n_weights;
    const double rate = (choices[from].computed - choices[to].computed) / static_cast<double>(more);
    if (more <= weights_left && rate > best.saved_per_weight) best = {layer, to, rate};
  }
  return best;
}

}  // namespace

std::vector<RankChoice> MeasureRanks(const LowRank& start, MatrixView samples, MatrixView gate,
                                     double mass, const std::vector<int64_t>& ranks,
                                     int n_threads) {
  const Matrix gates = Product(samples, Transposed(gate).view(), n_threads);
  std::vector<RankChoice> choices;
  for (const int64_t rank : ranks) {
    const LowRank cut = start.Cut(rank);
    const Matrix scores = Scores(samples, cut.fc1.view(), cut.fc2.view(), {}, n_threads);
    const Selection selection = Calibrate(scores.view(), gates.view(), mass);
    choices.push_back({.rank = rank,
                       .n_weights = rank * (gate.n_rows + gate.n_cols),
                       .computed = double{selection.computed} * static_cast<double>(gate.n_rows)});
  }
  return choices;
}

absl::StatusOr<std::vector<int64_t>> ChooseRanks(const std::vector<std::vector<RankChoice>>& layers,
                                                 int64_t budget_weights) {
  std::vector<int64_t> chosen(layers.size(), 0);
  int64_t left = budget_weights;
  for (const std::vector<RankChoice>& choices : layers) left -= choices.front().n_weights;
  if (left < 0) {
    return absl::InvalidArgumentError(
        fmt::format("a predictor of {} weights is too small for {} layers: the smallest has {}; "
                    "raise --predictor-budget",
                    budget_weights, layers.size(), budget_weights - left));
  }
  while (true) {
    Upgrade best;
    for (size_t i = 0; i < layers.size(); ++i) {
      const Upgrade upgrade = BestUpgrade(layers[i], i, chosen[i], left);
      if (upgrade.saved_per_weight > best.saved_per_weight) best = upgrade;
    }
    if (best.choice < 0) return chosen;
    const std::vector<RankChoice>& choices = layers[best.layer];
    left -= choices[best.choice].n_weights - choices[chosen[best.layer]].n_weights;
    chosen[best.layer] = best.choice;
  }
}

}  // namespace thermocline
