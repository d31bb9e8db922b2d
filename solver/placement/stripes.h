// Deals a run of neurons to several ranks so that each gets its share of the hot and of the cold
// ones alike.
#pragma once

#include <vector>

#include "common/plan/plan.h"

namespace thermocline {

// [shares.size()] of ascending ranges that cover `run` once. A rank with a share of 0 gets none.
// The ranks are then balanced in every mode, also in prefill and in mode off, which compute all
// neurons; whole runs of unequal heat would be balanced in one mode only.
std::vector<std::vector<Range>> DealInStripes(const Range& run, const std::vector<double>& shares);

}  // namespace thermocline
