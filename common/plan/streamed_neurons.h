// Which neurons a GPU rank reads from the file in long prompts (Plan::stream_tokens).
#pragma once

#include <cstdint>
#include <vector>

#include "common/plan/plan.h"

namespace thermocline {

// Neurons in ascending ranges, as the file numbers them, in so many runs of about as many each.
// Cut where the file's blocks of kNeuronUnit end, so runs may differ by a block, or be empty.
std::vector<std::vector<Range>> CutNeurons(const std::vector<Range>& neurons, int64_t n_runs);

// Of the neurons that CPU ranks hold in this layer, the GPU rank's share, as the file numbers them;
// none of a CPU rank, or of a plan that streams nothing. order: as FileNeurons has it.
std::vector<Range> StreamedNeurons(const Plan& plan, int64_t layer, int32_t rank,
                                   const std::vector<int32_t>& order);

}  // namespace thermocline
