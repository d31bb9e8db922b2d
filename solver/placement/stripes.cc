// Stripes from hot to cold; every other one is dealt in reverse order, so that who begins has no
// advantage.
#include "solver/placement/stripes.h"

#include <algorithm>

#include "solver/placement/split.h"

namespace thermocline {
namespace {

constexpr int64_t kStripes = 8;  // few enough to read, enough for a balance within about 1 %

void Append(const Range& range, std::vector<Range>* ranges) {
  if (range.size() == 0) return;
  if (!ranges->empty() && ranges->back().end == range.begin) {
    ranges->back().end = range.end;
  } else {
    ranges->push_back(range);
  }
}

}  // namespace

std::vector<std::vector<Range>> DealInStripes(const Range& run, const std::vector<double>& shares) {
  std::vector<std::vector<Range>> dealt(shares.size());
  std::vector<double> reversed(shares.rbegin(), shares.rend());
  for (int64_t stripe = 0; stripe < kStripes; ++stripe) {
    const int64_t begin = run.begin + run.size() * stripe / kStripes;
    const int64_t end = run.begin + run.size() * (stripe + 1) / kStripes;
    const bool is_reversed = stripe % 2 == 1;
    const std::vector<Range> cuts = SplitByShares(end - begin, 1, is_reversed ? reversed : shares);
    for (size_t i = 0; i < cuts.size(); ++i) {
      const size_t rank = is_reversed ? shares.size() - 1 - i : i;
      Append({begin + cuts[i].begin, begin + cuts[i].end}, &dealt[rank]);
    }
  }
  return dealt;
}

}  // namespace thermocline
