// One layer of the placement problem: which neurons where, for given prices or for given room.
// Layers are coupled in neuron_placement.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

struct PlacementLayer {
  std::vector<double> touched;  // [n], hottest first: bytes of the neuron that a step reads
  double held_bytes = 0;        // that a neuron takes in memory; all of a layer take the same
  std::vector<double> base_us;  // [n_ranks]: what the rank does in the layer besides; or empty: 0
};

// Neurons of each rank in one layer: ranks in `order` take the next `counts`, hottest first.
struct LayerCut {
  std::vector<int32_t> order;   // ranks, who takes the hottest first
  std::vector<int64_t> counts;  // [n_ranks], by rank
};

class LayerSolver {
 public:
  // us_per_byte: [n_ranks]; both must outlive the solver.
  LayerSolver(const PlacementLayer& layer, const std::vector<double>& us_per_byte);

  int64_t n_neurons() const { return static_cast<int64_t>(prefix_.size()) - 1; }
  double held_bytes() const { return layer_.held_bytes; }
  double total_work() const { return prefix_.back(); }
  // The slowest rank's time.
  double Us(const LayerCut& cut) const;

  // Minimises time + sum over ranks of price[r] * held bytes of r. With `order` by descending price
  // this is the optimum over all ways to place (fractions of) neurons, not only over contiguous
  // runs: see neuron_placement.h. [n_ranks] of neurons by rank, fractions allowed.
  struct Priced {
    double us = 0;
    std::vector<double> counts;
  };
  Priced AtPrices(const std::vector<double>& prices, const std::vector<int32_t>& order) const;

  // The least time for a fixed order when rank r may hold up to room[r] neurons. False when the
  // rooms together are too small.
  bool Within(const std::vector<int64_t>& room, LayerCut* cut) const;

 private:
  double BaseUs(int32_t rank) const { return layer_.base_us.empty() ? 0 : layer_.base_us[rank]; }
  double WorkWithin(double us, int32_t rank) const;  // bytes that the rank reads in time
  double PositionOf(double work) const;              // as a fraction of neurons, from the hottest
  double WorkAt(double position) const;
  // Fills from the cold end, cheapest first, for one time. False: the time is too short.
  bool FillFromCold(double us, const std::vector<int32_t>& order,
                    std::vector<double>* positions) const;
  double SumOfTimePrices(const std::vector<double>& prices, const std::vector<int32_t>& order,
                         const std::vector<double>& positions) const;
  bool FillFromHot(double us, const std::vector<int64_t>& room, LayerCut* cut) const;

  const PlacementLayer& layer_;
  const std::vector<double>& us_per_byte_;
  std::vector<double> prefix_;  // [n + 1]: work of the i hottest
};

}  // namespace thermocline
