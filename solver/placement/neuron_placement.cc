// Memory prices over all layers, rounding, and the order of the method's parts.
#include "solver/placement/neuron_placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fmt/format.h"
#include "solver/placement/ellipsoid.h"
#include "solver/placement/exchange_search.h"

namespace thermocline {
namespace {

constexpr double kTieBreak = 0.01;  // by which the prices of two layers differ
constexpr int kStarts = 8;          // of the search, when it does not come near the bound
constexpr double kNear = 1e-4, kNearWhenAlike = 1e-3;
constexpr double kGap = 1e-6;  // of the bound: good enough

class Prices {
 public:
  Prices(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers)
      : problem_(problem), solvers_(solvers), prices_(problem.n_ranks(), 0.0) {
    // A byte is worth no more than the time of the most read neuron on the slowest rank.
    const double slowest =
        *std::max_element(problem.us_per_byte.begin(), problem.us_per_byte.end());
    for (size_t l = 0; l < solvers.size(); ++l) {
      const PlacementLayer& layer = problem.layers[l];
      all_bytes_ += layer.held_bytes * static_cast<double>(layer.touched.size());
      const double most = *std::max_element(layer.touched.begin(), layer.touched.end());
      highest_price_ = std::max(highest_price_, slowest * most / layer.held_bytes);
    }
  }

  // Finds the prices of the highest bound. The bound is concave in the prices but has edges where
  // two ranks cost the same, so this is the ellipsoid method: each step cuts off the half of the
  // prices that its slope (bytes used beyond what there is) rules out. Only ranks that could run
  // out of memory have a price. Returns the bound.
  double Settle() {
    std::vector<int32_t> scarce;
    for (int32_t r = 0; r < problem_.n_ranks(); ++r) {
      if (problem_.free_bytes[r] < all_bytes_) scarce.push_back(r);
    }
    std::vector<double> none(scarce.size());
    double best = BoundAndSlope(scarce, &none);
    if (scarce.empty()) return best;
    std::vector<double> best_prices = prices_;
    Ellipsoid ellipsoid(static_cast<int>(scarce.size()), highest_price_);
    const size_t max_steps = std::min<size_t>(40 * scarce.size() * (scarce.size() + 1), 800);
    for (size_t step = 0; step < max_steps; ++step) {
      std::vector<double> slope(scarce.size(), 0.0);
      const int negative = ellipsoid.FirstNegative();
      double bound = -std::numeric_limits<double>::infinity();
      if (negative >= 0) {
        slope[negative] = 1;
      } else {
        for (size_t k = 0; k < scarce.size(); ++k) prices_[scarce[k]] = ellipsoid.center()[k];
        bound = BoundAndSlope(scarce, &slope);
      }
      if (bound > best) {
        best = bound;
        best_prices = prices_;
      }
      // How much higher the bound can get.
      const double left = ellipsoid.CutTowards(slope);
      if (left == 0 || (negative < 0 && left < kGap * best)) break;
    }
    prices_ = best_prices;
    return best;
  }

  // Whole neurons; memory may be exceeded by what rounding adds. tie_break: by which part of a
  // price layers differ; phase: 0..1, another sequence of differences.
  std::vector<LayerCut> Cuts(double tie_break, double phase) const {
    std::vector<LayerCut> cuts;
    for (size_t l = 0; l < solvers_.size(); ++l) {
      const std::vector<double> prices = OfLayer(l, tie_break, phase);
      LayerCut cut = {OrderAt(prices), std::vector<int64_t>(problem_.n_ranks())};
      const LayerSolver::Priced priced = solvers_[l].AtPrices(prices, cut.order);
      double end = 0;
      int64_t begin = 0;
      for (const int32_t rank : cut.order) {
        end += priced.counts[rank];
        const int64_t whole_end = std::min<int64_t>(std::llround(end), solvers_[l].n_neurons());
        cut.counts[rank] = whole_end - begin;
        begin = whole_end;
      }
      cut.counts[cut.order.back()] += solvers_[l].n_neurons() - begin;
      cuts.push_back(std::move(cut));
    }
    return cuts;
  }

 private:
  // slope: [scarce.size()], bytes that are used beyond what there is.
  double BoundAndSlope(const std::vector<int32_t>& scarce, std::vector<double>* slope) const {
    double us = 0;
    const std::vector<int32_t> order = OrderAt(prices_);
    std::vector<double> used(problem_.n_ranks(), 0.0);
    for (const LayerSolver& solver : solvers_) {
      const LayerSolver::Priced priced = solver.AtPrices(prices_, order);
      us += priced.us;
      for (int32_t r = 0; r < problem_.n_ranks(); ++r) {
        used[r] += solver.held_bytes() * priced.counts[r];
      }
    }
    for (size_t k = 0; k < scarce.size(); ++k) {
      (*slope)[k] = used[scarce[k]] - problem_.free_bytes[scarce[k]];
      us += prices_[scarce[k]] * (*slope)[k];
    }
    return us;
  }

  // Descending price; between equal ones, who fills his memory sooner takes the hotter.
  std::vector<int32_t> OrderAt(const std::vector<double>& prices) const {
    std::vector<int32_t> order(problem_.n_ranks());
    std::iota(order.begin(), order.end(), 0);
    const auto fill_us = [&](int32_t r) {
      return problem_.free_bytes[r] * problem_.us_per_byte[r];
    };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return prices[a] != prices[b] ? prices[a] > prices[b] : fill_us(a) < fill_us(b);
    });
    return order;
  }

  std::vector<double> OfLayer(size_t l, double tie_break, double phase) const {
    std::vector<double> prices = prices_;
    for (size_t r = 0; r < prices.size(); ++r) {
      // Fractions of the golden ratio: spread evenly over layers, another sequence for each rank.
      const double spread = phase + static_cast<double>(l + 1) * 0.618033988749895 +
                            static_cast<double>(r) * 0.414213562373095;
      prices[r] *= 1 + tie_break * (spread - std::floor(spread) - 0.5);
    }
    return prices;
  }

  const PlacementProblem& problem_;
  const std::vector<LayerSolver>& solvers_;
  std::vector<double> prices_;  // [n_ranks], us for each byte
  double all_bytes_ = 0, highest_price_ = 0;
};

// One pass of Repair over all layers.
bool RepairOnce(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers,
                std::vector<LayerCut>* cuts) {
  std::vector<double> slack = problem.free_bytes;
  for (size_t l = 0; l < cuts->size(); ++l) {
    for (int32_t r = 0; r < problem.n_ranks(); ++r) {
      slack[r] -= static_cast<double>((*cuts)[l].counts[r]) * solvers[l].held_bytes();
    }
  }
  for (int32_t r = 0; r < problem.n_ranks(); ++r) {
    for (size_t l = 0; l < cuts->size() && slack[r] < 0; ++l) {
      const double held = solvers[l].held_bytes();
      std::vector<int64_t>& counts = (*cuts)[l].counts;
      // Each layer gives up the same, if it can.
      int64_t wanted =
          static_cast<int64_t>(std::ceil(-slack[r] / held / static_cast<double>(cuts->size() - l)));
      while (slack[r] < 0 && counts[r] > 0 && wanted > 0) {
        const auto roomiest = std::max_element(slack.begin(), slack.end());
        const int64_t n = std::min({wanted, counts[r], static_cast<int64_t>(*roomiest / held)});
        if (n <= 0) break;
        counts[r] -= n;
        counts[roomiest - slack.begin()] += n;
        slack[r] += static_cast<double>(n) * held;
        *roomiest -= static_cast<double>(n) * held;
        wanted -= n;
      }
    }
  }
  return std::all_of(slack.begin(), slack.end(), [](double bytes) { return bytes >= 0; });
}

// Moves neurons off ranks whose memory they exceed to where there is most room. False: no room.
bool Repair(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers,
            std::vector<LayerCut>* cuts) {
  for (int pass = 0; pass < 4;
       ++pass) {  // layers that had too little to give make others give more
    if (RepairOnce(problem, solvers, cuts)) return true;
  }
  return false;
}

double StepUs(const std::vector<LayerSolver>& solvers, const std::vector<LayerCut>& cuts) {
  double us = 0;
  for (size_t l = 0; l < solvers.size(); ++l) us += solvers[l].Us(cuts[l]);
  return us;
}

// Where the search also starts, since prices can't see that neurons are whole: each layer's share
// of every memory, filled in the order of `order`.
std::vector<LayerCut> EvenCuts(const PlacementProblem& problem,
                               const std::vector<LayerSolver>& solvers,
                               const std::vector<int32_t>& order) {
  std::vector<LayerCut> cuts;
  std::vector<double> left = problem.free_bytes;
  for (size_t l = 0; l < solvers.size(); ++l) {
    LayerCut cut = {order, std::vector<int64_t>(problem.n_ranks())};
    int64_t unplaced = solvers[l].n_neurons();
    for (const int32_t rank : order) {
      const double share = left[rank] / static_cast<double>(solvers.size() - l);
      const int64_t n =
          rank == order.back()
              ? unplaced
              : std::clamp<int64_t>(static_cast<int64_t>(share / solvers[l].held_bytes()), 0,
                                    unplaced);
      cut.counts[rank] = n;
      left[rank] -= static_cast<double>(n) * solvers[l].held_bytes();
      unplaced -= n;
    }
    cuts.push_back(std::move(cut));
  }
  return cuts;
}

bool AreAlike(const std::vector<PlacementLayer>& layers) {
  return std::adjacent_find(layers.begin(), layers.end(),
                            [](const PlacementLayer& a, const PlacementLayer& b) {
                              return a.held_bytes != b.held_bytes || a.touched != b.touched ||
                                     a.base_us != b.base_us;
                            }) == layers.end();
}

absl::Status CheckRoom(const PlacementProblem& problem) {
  double needed = 0;
  for (const PlacementLayer& layer : problem.layers) {
    needed += layer.held_bytes * static_cast<double>(layer.touched.size());
  }
  const double room = std::accumulate(problem.free_bytes.begin(), problem.free_bytes.end(), 0.0);
  if (needed <= room) return absl::OkStatus();
  constexpr double kGib = 1024.0 * 1024 * 1024;
  return absl::ResourceExhaustedError(fmt::format(
      "the neurons take {:.2f} GiB, but all ranks together have room for {:.2f} GiB beside the "
      "rest",
      needed / kGib, std::max(room, 0.0) / kGib));
}

}  // namespace

absl::StatusOr<Placement> PlaceNeurons(const PlacementProblem& problem) {
  if (absl::Status room = CheckRoom(problem); !room.ok()) return room;
  if (problem.layers.empty()) return Placement();
  std::vector<LayerSolver> solvers;
  solvers.reserve(problem.layers.size());
  for (const PlacementLayer& layer : problem.layers) {
    solvers.emplace_back(layer, problem.us_per_byte);
  }
  Prices prices(problem, solvers);
  Placement best;
  best.bound_us = prices.Settle();
  const auto is_near = [&](double us, double by) { return us <= best.bound_us * (1 + by); };
  const bool are_alike = AreAlike(problem.layers);
  const auto try_from = [&](std::vector<LayerCut> cuts) {
    if (!Repair(problem, solvers, &cuts)) return;
    // Equal layers keep equal cuts if that is good enough: plans are for people, too.
    if (!are_alike || !is_near(StepUs(solvers, cuts), kNearWhenAlike)) {
      SearchByExchange(problem, solvers, &cuts);
    }
    const double us = StepUs(solvers, cuts);
    if (!best.layers.empty() && us >= best.us) return;
    best.us = us;
    best.layers = std::move(cuts);
  };
  const double near = are_alike ? kNearWhenAlike : kNear;
  const std::vector<LayerCut> start = prices.Cuts(0, 0);
  for (int i = 0; i < kStarts && (best.layers.empty() || !is_near(best.us, near)); ++i) {
    const double phase = static_cast<double>(i) / kStarts;
    if (i == 0) {
      try_from(start);
    } else if (i + 1 < kStarts) {
      try_from(prices.Cuts(kTieBreak, phase));
    } else {
      try_from(EvenCuts(problem, solvers, start[0].order));
    }
  }
  if (best.layers.empty()) {
    return absl::ResourceExhaustedError(
        "the neurons fit in all memories together, but not in "
        "whole neurons; free a little memory");
  }
  return best;
}

}  // namespace thermocline
