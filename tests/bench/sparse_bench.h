// The kernels of active neurons, as benchmarks of what streams through memory.
#pragma once

#include <vector>

#include "tests/bench/against_read.h"

namespace thermocline::kernels {

// Of a type and level: rows (all, and a tenth of them), sketches of 1 to 3 bits, a tenth of
// ffn_down's neurons in both layouts; what the type has. Inputs live as long as the process.
std::vector<Streaming> sparse_streamings(const Ops& level, TensorType type, int64_t d_model);

}  // namespace thermocline::kernels
