// How much memory this process may still take. Reads what the kernel says; takes nothing.
#pragma once

#include <cstdint>

namespace thermocline {

// Bytes that can be had without swapping, under the limits of this process's control groups.
// INT64_MAX where the kernel doesn't say.
int64_t AvailableMemoryBytes();

// The same on one NUMA node: free memory, and cached files that can be dropped.
int64_t AvailableNodeBytes(int32_t node);

}  // namespace thermocline
