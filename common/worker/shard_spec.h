// What one rank of a plan holds, in the terms of the file. No weights.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/profile.h"
#include "common/model/sparsity.h"
#include "common/plan/plan.h"

namespace thermocline {

// What one rank holds, and how it computes the FFN.
struct ShardSpec {
  struct Layer {
    Range kv_heads;              // with their query heads
    std::vector<Range> neurons;  // ascending, as the file numbers them
    Sparsity mode = Sparsity::kOff;
    int32_t sketch_bits = 0;  // 1..3 in mode sketch
    float threshold = 0;      // of the mode's score: predict, sketch, threshold
    Range tail_heads = {};    // of other ranks: their K and V of the tail (plan.h) are held here
    std::vector<Range> streamed = {};  // GPU: read in long prompts, none of `neurons`
    // Mode predict. A GPU's: CPU ranks' neurons that it chooses for them. A CPU's: the places of
    // `neurons` among those that a GPU chooses from; none: it chooses by itself.
    std::vector<Range> decided = {};
    std::vector<Range> choices = {};
  };
  std::vector<Layer> layers;  // [n_layers]
  Range vocab;
  bool f32_activations = false;  // weights of layers that skip neurons are kept as f32, too
  int64_t stream_tokens = 0;     // as the plan has it
};

// The spec's part of a checked plan; thresholds are left at 0. profile: the plan's, or null.
ShardSpec SpecOfRank(const Plan& plan, int32_t rank, const Profile* profile = nullptr);
int64_t TotalSize(const std::vector<Range>& ranges);

}  // namespace thermocline
