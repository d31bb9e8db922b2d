// What a GPU rank wants of its device's memory, and what to ask for instead where that is too much.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace thermocline {

struct MemoryNeed {
  int64_t weight_bytes = 0, kv_bytes = 0, buffer_bytes = 0;
  int64_t graph_bytes = 0;     // that the device will take for graphs by itself, at most
  int64_t budget_bytes = 0;    // that the plan promises; 0: none
  int64_t free_bytes = 0;      // as the device says
  int64_t n_ctx = 1;           // positions of the KV cache
  int64_t n_whole_layers = 0;  // that all here are; 0: there are parts of layers

  int64_t total_bytes() const { return weight_bytes + kv_bytes + buffer_bytes + graph_bytes; }
  int64_t limit_bytes() const;
  bool fits() const { return total_bytes() <= limit_bytes(); }
  // Of one that does not fit: each part, the limit, and to what a flag would have to be set, each
  // alone.
  std::string Describe() const;
};

// Once a rank has its memory, graphs and all: that the device has given no more than the plan
// promises (0: nothing), but for what a driver rounds and takes for itself. ResourceExhausted with
// both numbers.
absl::Status CheckTaken(const std::string& device, int64_t promised_bytes, int64_t taken_bytes);

}  // namespace thermocline
