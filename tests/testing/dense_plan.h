// Plans of any shares, for tests that bring their own ranks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/plan.h"

namespace thermocline::testing {

// Every layer split over all ranks, without a profile. shares[r] > 0: the part of the work that
// rank r gets. Heads go in whole units of KV heads (ModelConfig::kv_heads_per_unit): with more
// ranks than units some ranks hold neurons and vocabulary only. Neurons go in 32s, vocabulary rows
// in 16s. InvalidArgument when the model can't be cut.
absl::StatusOr<Plan> SplitDense(const ModelConfig& config, const std::string& model_hash,
                                const std::vector<RankPlan>& ranks,
                                const std::vector<double>& shares);

}  // namespace thermocline::testing
