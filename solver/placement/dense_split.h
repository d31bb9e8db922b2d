// The plan of a dense fleet: every layer split over all ranks by their shares, since all of them
// meet in every exchange and the slowest decides. No profile, no memory limits.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/plan.h"

namespace thermocline {

// shares[r] > 0: the part of the work that rank r should get (bandwidth, or threads). Heads go in
// whole units of KV heads (ModelConfig::kv_heads_per_unit): with more ranks than units some ranks
// hold neurons and vocabulary only. Neurons go in 32s, vocabulary rows in 16s. InvalidArgument when
// shares and ranks disagree or the model can't be cut.
absl::StatusOr<Plan> SplitDense(const ModelConfig& config, const std::string& model_hash,
                                const std::vector<RankPlan>& ranks,
                                const std::vector<double>& shares);

}  // namespace thermocline
