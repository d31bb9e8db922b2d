// The plan of a dense fleet: every layer split over all ranks by their shares, since all of them
// meet in every exchange and the slowest decides. No profile, no memory limits.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/plan.h"

namespace thermocline {

// Cuts [0, total) into one contiguous range a rank, in whole units (the last one may be short), as
// close to the shares (0 or more, not all 0) as whole units allow: largest remainders first, lower
// ranks among equals.
std::vector<Range> SplitByShares(int64_t total, int64_t unit, const std::vector<double>& shares);

inline constexpr int64_t kVocabUnit = 16;  // rows of the output matrix

// shares[r] > 0: the part of the work that rank r should get (bandwidth, or threads). Heads go in
// whole units of KV heads (ModelConfig::kv_heads_per_unit): with more ranks than units some ranks
// hold neurons and vocabulary only. Neurons go in 32s, vocabulary rows in 16s. InvalidArgument when
// shares and ranks disagree or the model can't be cut.
absl::StatusOr<Plan> SplitDense(const ModelConfig& config, const std::string& model_hash,
                                const std::vector<RankPlan>& ranks,
                                const std::vector<double>& shares);

}  // namespace thermocline
