// A plan as people read it: the table and the totals of build/bin/plan, and its picture.
#pragma once

#include <string>

#include "solver/placement/hot_cold.h"

namespace thermocline {

// Share of the layer's firings that a rank's neurons carry, 0..1.
double ActivationsCovered(const FiringTable& firing, const std::vector<Range>& neurons);

// One row for each run of equal layers, columns with one number a rank; then the memory of each
// rank against its limit, and tokens/s.
std::string PlanTable(const ModelShape& shape, const Hardware& hardware, const PlannedFleet& fleet);

// SVG: on the left the neurons of each layer, as the plan counts them, coloured by their rank; on
// the right the share of the layer's activations that each rank covers.
std::string PlanSvg(const ModelShape& shape, const Hardware& hardware, const PlannedFleet& fleet);

}  // namespace thermocline
