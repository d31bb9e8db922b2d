// How much memory this process may still take. Reads what the kernel says; takes nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "common/util/topology.h"

namespace thermocline {

// Bytes that can be had without swapping, under the limits of this process's control groups.
// INT64_MAX where the kernel doesn't say.
int64_t AvailableMemoryBytes();

// The same of each NUMA node, [nodes.size()]; all of them together stay within that. Of an only
// node it is all memory, as nothing is bound to it then.
std::vector<int64_t> AvailableBytesOfNodes(const std::vector<NumaNode>& nodes);

}  // namespace thermocline
