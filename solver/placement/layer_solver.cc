// Bisection on a layer's time; each try fills ranks by binary search in the prefix sums.
#include "solver/placement/layer_solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace thermocline {
namespace {

constexpr int kBisections = 45;     // halvings of the time: 1e-13 of it
constexpr double kRounding = 1e-9;  // of a layer's work, from sums of many terms

}  // namespace

LayerSolver::LayerSolver(const PlacementLayer& layer, const std::vector<double>& us_per_byte)
    : layer_(layer), us_per_byte_(us_per_byte), prefix_(layer.touched.size() + 1, 0.0) {
  std::partial_sum(layer.touched.begin(), layer.touched.end(), prefix_.begin() + 1);
}

double LayerSolver::Us(const LayerCut& cut) const {
  double us = 0;
  int64_t begin = 0;
  for (const int32_t rank : cut.order) {
    const int64_t end = begin + cut.counts[rank];
    if (end > begin) {
      us = std::max(us, BaseUs(rank) + (prefix_[end] - prefix_[begin]) * us_per_byte_[rank]);
    }
    begin = end;
  }
  return us;
}

double LayerSolver::WorkWithin(double us, int32_t rank) const {
  return std::max(0.0, us - BaseUs(rank)) / us_per_byte_[rank];
}

double LayerSolver::PositionOf(double work) const {
  const auto above = std::lower_bound(prefix_.begin(), prefix_.end(), work);
  if (above == prefix_.begin()) return 0;
  if (above == prefix_.end()) return static_cast<double>(n_neurons());
  const double below = *(above - 1);
  return static_cast<double>(above - 1 - prefix_.begin()) + (work - below) / (*above - below);
}

double LayerSolver::WorkAt(double position) const {
  const int64_t whole = std::min(static_cast<int64_t>(position), n_neurons() - 1);
  const double part = position - static_cast<double>(whole);
  return prefix_[whole] + part * (prefix_[whole + 1] - prefix_[whole]);
}

// positions[k]: where the k-th of `order` ends, the last of them at n_neurons.
bool LayerSolver::FillFromCold(double us, const std::vector<int32_t>& order,
                               std::vector<double>* positions) const {
  double end = total_work();
  for (size_t k = order.size(); k-- > 0;) {
    (*positions)[k] = PositionOf(end);
    end = std::max(0.0, end - WorkWithin(us, order[k]));
  }
  return end <= kRounding * total_work();
}

// The time prices (duals of "rank r is done in time"): the rank that is not full has none; where
// two ranks meet at a neuron of work w, their costs s * w + price * held are equal. At the best
// time they sum to 1.
double LayerSolver::SumOfTimePrices(const std::vector<double>& prices,
                                    const std::vector<int32_t>& order,
                                    const std::vector<double>& positions) const {
  double sum = 0, slope = 0;
  for (size_t k = 0; k + 1 < order.size(); ++k) {
    const auto neuron = std::min(static_cast<int64_t>(positions[k]), n_neurons() - 1);
    if (positions[k] > 0) {  // else nobody before the cut: the next rank is the one not full
      slope += layer_.held_bytes * (prices[order[k]] - prices[order[k + 1]]) /
               std::max(layer_.touched[neuron], 1e-12);
    }
    sum += slope / us_per_byte_[order[k + 1]];
  }
  return sum;
}

LayerSolver::Priced LayerSolver::AtPrices(const std::vector<double>& prices,
                                          const std::vector<int32_t>& order) const {
  const size_t n_ranks = order.size();
  double high = 0;  // enough for any rank alone
  for (const int32_t rank : order) {
    high = std::max(high, BaseUs(rank) + total_work() * us_per_byte_[rank]);
  }
  double low = 0;
  std::vector<double> positions(n_ranks);
  for (int i = 0; i < kBisections; ++i) {
    const double us = (low + high) / 2;
    const bool is_enough = FillFromCold(us, order, &positions);
    (is_enough && SumOfTimePrices(prices, order, positions) <= 1 ? high : low) = us;
  }
  FillFromCold(high, order, &positions);
  Priced priced;
  priced.us = high;
  priced.counts.resize(n_ranks);
  double begin = 0;
  for (size_t k = 0; k < n_ranks; ++k) {
    priced.counts[order[k]] = positions[k] - begin;
    begin = positions[k];
  }
  return priced;
}

bool LayerSolver::FillFromHot(double us, const std::vector<int64_t>& room, LayerCut* cut) const {
  int64_t begin = 0;
  for (const int32_t rank : cut->order) {
    const double limit = prefix_[begin] + WorkWithin(us, rank) + kRounding * 1e-3 * total_work();
    const auto above = std::upper_bound(prefix_.begin() + begin, prefix_.end(), limit);
    const int64_t in_time = above - prefix_.begin() - 1 - begin;
    cut->counts[rank] = std::clamp<int64_t>(in_time, 0, std::max<int64_t>(room[rank], 0));
    begin += cut->counts[rank];
  }
  return begin == n_neurons();
}

bool LayerSolver::Within(const std::vector<int64_t>& room, LayerCut* cut) const {
  double high = 0;
  for (const int32_t rank : cut->order) {
    high = std::max(high, BaseUs(rank) + total_work() * us_per_byte_[rank]);
  }
  cut->counts.assign(us_per_byte_.size(), 0);
  high *= 1 + kRounding;
  if (!FillFromHot(high, room, cut)) return false;
  double low = 0;
  for (int i = 0; i < kBisections; ++i) {
    const double us = (low + high) / 2;
    (FillFromHot(us, room, cut) ? high : low) = us;
  }
  return FillFromHot(high, room, cut);
}

}  // namespace thermocline
