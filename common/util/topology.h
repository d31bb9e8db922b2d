// The machine's NUMA nodes and the CPUs of them that this process may use, and binding to one.
// Honours what numactl, cgroups or taskset set before.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace thermocline {

struct NumaNode {
  int32_t id;
  std::vector<int32_t> cpus;  // that this process may run on; never empty
};

// Nodes with memory and at least one CPU that this process may use (at least one; node 0 where the
// kernel knows no NUMA). A usable CPU whose node's memory is forbidden counts for the first node.
std::vector<NumaNode> UsableNodes();

// Lets the calling thread (threads it starts inherit it) run only on the node's CPUs that it may
// use, and the memory that it touches first come from the node, unless a memory policy was
// inherited: that one stays. Does nothing where there is one usable node only. InvalidArgument when
// the node has no usable CPU.
absl::Status BindThreadToNode(int32_t node);

}  // namespace thermocline
