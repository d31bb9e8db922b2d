// Largest remainders for equal items, prefix sums for others.
#include "solver/placement/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace thermocline {

std::vector<Range> SplitByShares(int64_t total, int64_t unit, const std::vector<double>& shares) {
  const int64_t n_units = (total + unit - 1) / unit;
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<int64_t> units(shares.size());
  std::vector<std::pair<double, size_t>> remainders;
  int64_t left = n_units;
  for (size_t rank = 0; rank < shares.size(); ++rank) {
    const double exact = static_cast<double>(n_units) * shares[rank] / sum;
    units[rank] = std::min(static_cast<int64_t>(std::floor(exact)), left);
    left -= units[rank];
    remainders.emplace_back(exact - static_cast<double>(units[rank]), rank);
  }
  std::stable_sort(remainders.begin(), remainders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (int64_t i = 0; i < left; ++i) ++units[remainders[i % remainders.size()].second];

  std::vector<Range> ranges;
  int64_t begin = 0;
  for (const int64_t n : units) {
    const int64_t end = std::min(begin + n * unit, total);
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

std::vector<Range> SplitByWork(const std::vector<double>& work, int64_t unit,
                               const std::vector<double>& shares) {
  const auto total = static_cast<int64_t>(work.size());
  std::vector<double> before = {0};  // of each unit, and at the end all
  for (int64_t i = 0; i < total; i += unit) {
    const int64_t end = std::min(i + unit, total);
    before.push_back(std::accumulate(work.begin() + i, work.begin() + end, before.back()));
  }
  if (before.back() <= 0) return SplitByShares(total, unit, shares);
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<Range> ranges;
  double share = 0;
  int64_t begin = 0;
  for (const double own : shares) {
    share += own;
    const double wanted = before.back() * share / sum;
    const auto above = std::lower_bound(before.begin(), before.end(), wanted);
    int64_t cut =
        std::min<int64_t>(above - before.begin(), static_cast<int64_t>(before.size()) - 1);
    if (cut > 0 && wanted - before[cut - 1] < before[cut] - wanted) --cut;
    const int64_t end =
        &own == &shares.back() ? total : std::max(begin, std::min(cut * unit, total));
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

}  // namespace thermocline
