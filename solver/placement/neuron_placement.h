// Which neurons on which rank, so that a step is fastest and every rank's memory suffices. Knows
// neuron tables only: no models, no GPUs. Baselines to compare with are in its test.
//
// The problem. Neuron i of layer l takes h_l bytes wherever it lies and makes a step read w_i bytes
// of it (on average; more, the more often it fires). Rank r reads a byte in u_r us and has room for
// M_r bytes. Minimise sum over layers of max over ranks of (b_lr + u_r * sum of w_i of its
// neurons).
//
// Why runs of the hottest-first order. With fractions of neurons allowed this is a linear program.
// Let p_r >= 0 be the price of a byte of rank r's memory, t_lr >= 0 that of its time in layer l
// (for each layer they sum to 1). An optimum puts neuron i where t_lr * u_r * w_i + p_r * h_l is
// least: ranks are straight lines over w, and the lower envelope of lines gives each of them one
// interval of w, that is one run of the neurons sorted by w. Flatter lines (time to spare) have the
// hotter neurons, and to be on the envelope they must have the higher memory price. So it is NOT
// the fastest rank that takes the hottest neurons, but the one whose memory is scarcest: a GPU, as
// a rule; but a slow rank with room for a hundred neurons should get the hottest hundred, too.
// Between ranks of the same price the order is free. What the relaxation ignores is parts of a
// neuron: less than one neuron a rank and layer.
//
// Method. For fixed memory prices a layer is solved exactly (LayerSolver::AtPrices: bisection on
// its time, ranks filled from the cold end in order of rising price). The prices are those of the
// highest lower bound (weak duality), found by the ellipsoid method. At these prices ranks of equal
// price would flip all layers at once, so each layer sees the prices a little differently (1 %).
// Cuts are rounded to whole neurons; then an exchange search moves room between layers and ranks as
// long as the step gets faster: first in large portions, in the end one neuron at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "solver/placement/layer_solver.h"

namespace thermocline {

struct PlacementProblem {
  std::vector<PlacementLayer> layers;
  std::vector<double> us_per_byte;  // [n_ranks], above 0
  std::vector<double> free_bytes;   // [n_ranks], for neurons

  int32_t n_ranks() const { return static_cast<int32_t>(us_per_byte.size()); }
};

struct Placement {
  std::vector<LayerCut> layers;
  double us = 0;        // sum over layers of the slowest rank
  double bound_us = 0;  // no placement is faster
};

// ResourceExhausted with the numbers when all memory together does not hold all neurons.
absl::StatusOr<Placement> PlaceNeurons(const PlacementProblem& problem);

}  // namespace thermocline
