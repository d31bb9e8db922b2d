// From how many tokens a step on it is faster that GPUs read the CPU ranks' neurons from the file
// and compute them than that CPUs do (Plan::stream_tokens).
//
// Both sides of a layer, in prompts long enough that every neuron is needed by some token:
//   CPUs    max_r tokens * multiply-adds of rank r's neurons / r's rate
//   GPUs    max over them of hot and streamed weights' way through its memory (read, written in f16
//           and read again) and the streamed ones' over its link; or, where that takes longer,
//           packing: all streamed bytes at the CPUs' rate, read, written and read by the link
// The arithmetic of GPUs is left out: at the number of tokens where the two meet, some hundred at
// most, it is a small part of the way over the link.
#pragma once

#include <cstdint>

#include "solver/placement/hot_cold.h"

namespace thermocline {

// Tokens of a step, at most, where programs are not told otherwise (--batch-size).
inline constexpr int64_t kUsualBatch = 512;

struct StreamChoice {
  int64_t tokens = 0;  // as Plan::stream_tokens
  // Of the layers with neurons on CPUs, of a step of batch_size tokens; 0 where tokens is 0.
  double cpu_ms = 0, stream_ms = 0;
};

// Steps have batch_size tokens at most. tokens is 0 where no step is long enough, where a GPU is
// emulated or a rank is on another host, where the CPUs' rates are not known, and where their
// memory, beside what they hold, has no room for the file's pages with these neurons.
StreamChoice ChooseStreaming(const ModelShape& shape, const Hardware& hardware,
                             const PlannedFleet& fleet, int64_t batch_size);

}  // namespace thermocline
