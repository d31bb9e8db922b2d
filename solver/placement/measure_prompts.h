// What a thread does of long prompts: computing weights for many tokens, and packing them for a
// GPU.
#pragma once

namespace thermocline {

struct PromptRates {
  double gmacs = 0;      // 1e9 multiply-adds a second, of int8 products with 64 tokens
  double pack_gbps = 0;  // of weights packed for a GPU, 1e9 bytes a second, out of a cache
};

// Of the calling thread, with Q4_K, in about 30 ms. Where all threads of a node measure at the same
// time, each has what is its own of them all.
PromptRates MeasurePromptRates();

}  // namespace thermocline
