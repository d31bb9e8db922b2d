// Which neurons the decider of a layer chooses for CPU ranks, and where these find theirs.
#pragma once

#include <cstdint>
#include <vector>

#include "common/plan/plan.h"

namespace thermocline {

// To ascending ranges, in ascending order; those that touch become one.
void AppendRange(const Range& range, std::vector<Range>* ranges);

// order, below: as FileNeurons has it.

// All that CPU ranks hold of a layer, as the file numbers them.
std::vector<Range> NeuronsOfCpus(const Plan& plan, int64_t layer,
                                 const std::vector<int32_t>& order);

// Of the layer's decider: all these; of another rank: none.
std::vector<Range> DecidedNeurons(const Plan& plan, int64_t layer, int32_t rank,
                                  const std::vector<int32_t>& order);

// Of a CPU rank whose neurons another one chooses: their places among NeuronsOfCpus, in the order
// of its neurons. Else none.
std::vector<Range> ChoicesOfRank(const Plan& plan, int64_t layer, int32_t rank,
                                 const std::vector<int32_t>& order);

// The most neurons that a decider chooses from in a layer; 0: no layer has one.
int64_t MaxChoices(const Plan& plan);

}  // namespace thermocline
