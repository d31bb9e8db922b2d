// Which sparsity mode each layer is computed in: what was asked for, or what is good enough and
// reads the fewest bytes, or may be faster although it reads more.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "solver/placement/cost_model.h"

namespace thermocline {

struct ModeRequest {
  std::optional<Sparsity> mode;  // none: auto
  double quality_pct = 0.1;      // auto: by how much perplexity may rise
};

// What is known of a model beside its shape.
struct ModeKnowledge {
  const Profile* profile = nullptr;  // null: none
  bool is_described = false;         // thresholds and predictors as published stand for its own
};

// What was asked for, alone. Auto: of the modes that are good enough in each layer, those with the
// fewest bytes; and, if that is another choice, predict wherever it is good enough: a GPU that
// decides for CPUs reads a predictor many times as fast as they read a sketch (PlanHotCold takes
// the faster). Modes that need what is not there are not chosen by auto; asked for, they are
// FailedPrecondition with what is missing. What a mode costs in perplexity follows from the mean KL
// divergence that solve measured with all layers in that mode: on text like the model's own, the
// logarithm of perplexity rises by as much. Where solve measured none, the figures of a model of
// 110M stand for it (README.md, "Sparsity": 9.4 % firing, thresholds for a recall of 0.98), in
// proportion to the firings that the profile's thresholds miss.
absl::StatusOr<ModeChoices> ChooseModes(const ModelShape& shape,
                                        const std::vector<FiringTable>& firing,
                                        const ModeKnowledge& knowledge, const ModeRequest& request);

}  // namespace thermocline
