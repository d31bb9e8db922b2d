// Splits every layer by shares; the plan's own checks are in common/plan.
#include "tests/testing/dense_plan.h"

#include "common/util/status_macros.h"
#include "solver/placement/split.h"

namespace thermocline::testing {

absl::StatusOr<Plan> SplitDense(const ModelConfig& config, const std::string& model_hash,
                                const std::vector<RankPlan>& ranks,
                                const std::vector<double>& shares) {
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

}  // namespace thermocline::testing
