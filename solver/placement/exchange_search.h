// Improves a placement by moving neurons between ranks within a layer, or in two layers at once in
// opposite directions, so that memory suffices throughout.
#pragma once

#include <vector>

#include "solver/placement/neuron_placement.h"

namespace thermocline {

// `solvers`: one a layer of the problem. `cuts` must fit in memory, and does afterwards.
void SearchByExchange(const PlacementProblem& problem, const std::vector<LayerSolver>& solvers,
                      std::vector<LayerCut>* cuts);

}  // namespace thermocline
