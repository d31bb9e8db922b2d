// A rank's part of a plan.
#include "common/worker/shard_spec.h"

#include "common/plan/decided_neurons.h"
#include "common/plan/streamed_neurons.h"

namespace thermocline {

int64_t TotalSize(const std::vector<Range>& ranges) {
  int64_t total = 0;
  for (const Range& range : ranges) total += range.size();
  return total;
}

ShardSpec SpecOfRank(const Plan& plan, int32_t rank, const Profile* profile) {
  ShardSpec spec;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const auto index = static_cast<int64_t>(i);
    std::vector<int32_t> order;
    if (profile != nullptr) order = HottestFirst(profile->layers[i]);
    spec.layers.push_back(
        {layer.kv_heads[rank], FileNeurons(layer, rank, order), layer.mode, layer.sketch_bits, 0.0f,
         layer.tail_heads.empty() ? Range{} : layer.tail_heads[rank],
         StreamedNeurons(plan, index, rank, order), DecidedNeurons(plan, index, rank, order),
         ChoicesOfRank(plan, index, rank, order)});
  }
  spec.vocab = plan.vocab[rank];
  spec.stream_tokens = plan.stream_tokens;
  return spec;
}

}  // namespace thermocline
