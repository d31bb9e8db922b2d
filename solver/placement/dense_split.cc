// Splits every layer by shares; the plan's own checks are in common/plan.
#include "solver/placement/dense_split.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/util/status_macros.h"
#include "fmt/format.h"

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

absl::StatusOr<Plan> SplitDense(const ModelConfig& config, const std::string& model_hash,
                                const std::vector<RankPlan>& ranks,
                                const std::vector<double>& shares) {
  if (ranks.empty() || ranks.size() != shares.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{} shares for {} ranks", shares.size(), ranks.size()));
  }
  for (const double share : shares) {
    if (!std::isfinite(share) || share <= 0) {
      return absl::InvalidArgumentError("the share of a rank must be above 0");
    }
  }
  Plan plan;
  plan.model_hash = model_hash;
  plan.ranks = ranks;
  LayerPlan layer;
  layer.kv_heads = SplitByShares(config.n_kv_heads, config.kv_heads_per_unit(), shares);
  for (const Range& range : SplitByShares(config.d_ff, kNeuronUnit, shares)) {
    layer.neurons.push_back(range.size() > 0 ? std::vector<Range>{range} : std::vector<Range>{});
  }
  plan.layers.assign(config.n_layers, layer);
  plan.vocab = SplitByShares(config.n_vocab, kVocabUnit, shares);
  RETURN_IF_ERROR(CheckPlan(plan, config, model_hash));
  return plan;
}

}  // namespace thermocline
