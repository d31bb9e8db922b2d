#include "solver/predictor/calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace thermocline {
namespace {

struct Firing {
  float score, activation;
};

// The score of the first firing that is kept: those that score less lose at most 1 - mass.
float FirstKept(MatrixView scores, MatrixView gates, double mass) {
  std::vector<Firing> firings;
  double may_lose = 0;
  for (int64_t i = 0; i < gates.n_rows * gates.n_cols; ++i) {
    if (!(gates.data[i] > 0)) continue;
    firings.push_back({scores.data[i], gates.data[i]});
    may_lose += (1 - mass) * gates.data[i];
  }
  if (firings.empty()) return std::numeric_limits<float>::max();
  std::sort(firings.begin(), firings.end(),
            [](const Firing& a, const Firing& b) { return a.score < b.score; });
  for (const Firing& firing : firings) {
    may_lose -= firing.activation;
    if (may_lose < 0) return firing.score;
  }
  return firings.back().score;
}

}  // namespace

Matrix Scores(MatrixView samples, MatrixView fc1, MatrixView fc2, const std::vector<float>& bias,
              int n_threads) {
  const Matrix hidden = Product(samples, Transposed(fc1).view(), n_threads);
  Matrix scores = Product(hidden.view(), Transposed(fc2).view(), n_threads);
  for (int64_t t = 0; !bias.empty() && t < scores.n_rows; ++t) {
    for (int64_t i = 0; i < scores.n_cols; ++i) scores.row(t)[i] += bias[i];
  }
  return scores;
}

Selection Calibrate(MatrixView scores, MatrixView gates, double mass_wanted) {
  const int64_t n = gates.n_rows * gates.n_cols;
  Selection selection;
  // A neuron is computed when its score is above the threshold, so it lies one step below.
  selection.threshold = std::nextafter(FirstKept(scores, gates, mass_wanted),
                                       -std::numeric_limits<float>::infinity());
  int64_t n_computed = 0, n_fired = 0, n_kept = 0;
  double mass = 0, mass_kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool computed = scores.data[i] > selection.threshold, fires = gates.data[i] > 0;
    n_computed += computed;
    if (!fires) continue;
    n_fired += 1;
    mass += gates.data[i];
    n_kept += computed;
    if (computed) mass_kept += gates.data[i];
  }
  selection.computed = static_cast<float>(n_computed) / static_cast<float>(n);
  selection.recall = n_fired == 0 ? 1 : static_cast<float>(n_kept) / static_cast<float>(n_fired);
  selection.mass = n_fired == 0 ? 1 : static_cast<float>(mass_kept / mass);
  return selection;
}

}  // namespace thermocline
