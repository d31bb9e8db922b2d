// Cuts a row of items into one contiguous range a rank, by the ranks' shares.
#pragma once

#include <vector>

#include "common/plan/plan.h"

namespace thermocline {

// Cuts [0, total) into one contiguous range a rank, in whole units (the last one may be short), as
// close to the shares (0 or more, not all 0) as whole units allow: largest remainders first, lower
// ranks among equals.
std::vector<Range> SplitByShares(int64_t total, int64_t unit, const std::vector<double>& shares);

// The same for items that are not equal: work[i] >= 0 is what item i costs. Cuts lie at whole
// units, each as close as they allow to where the ranks before have their share of all work.
std::vector<Range> SplitByWork(const std::vector<double>& work, int64_t unit,
                               const std::vector<double>& shares);

inline constexpr int64_t kVocabUnit = 16;  // rows of the output matrix

}  // namespace thermocline
