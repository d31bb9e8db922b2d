// Neurons that are chosen by another rank than theirs.
#include "common/plan/decided_neurons.h"

#include <algorithm>

namespace thermocline {

void AppendRange(const Range& range, std::vector<Range>* ranges) {
  if (!ranges->empty() && ranges->back().end == range.begin) {
    ranges->back().end = range.end;
  } else {
    ranges->push_back(range);
  }
}

std::vector<Range> NeuronsOfCpus(const Plan& plan, int64_t layer,
                                 const std::vector<int32_t>& order) {
  std::vector<Range> pieces, held;
  for (int32_t r = 0; r < plan.n_ranks(); ++r) {
    if (plan.ranks[r].kind == RankKind::kGpu) continue;
    const std::vector<Range> own = FileNeurons(plan.layers[layer], r, order);
    pieces.insert(pieces.end(), own.begin(), own.end());
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (const Range& piece : pieces) AppendRange(piece, &held);
  return held;
}

std::vector<Range> DecidedNeurons(const Plan& plan, int64_t layer, int32_t rank,
                                  const std::vector<int32_t>& order) {
  if (plan.layers[layer].decider != rank) return {};
  return NeuronsOfCpus(plan, layer, order);
}

std::vector<Range> ChoicesOfRank(const Plan& plan, int64_t layer, int32_t rank,
                                 const std::vector<int32_t>& order) {
  if (plan.layers[layer].decider < 0 || plan.ranks[rank].kind == RankKind::kGpu) return {};
  std::vector<Range> places;
  const std::vector<Range> all = NeuronsOfCpus(plan, layer, order);
  auto holder = all.begin();
  int64_t before = 0;  // neurons of the ranges before *holder
  for (const Range& own : FileNeurons(plan.layers[layer], rank, order)) {
    for (; holder->end <= own.begin; ++holder) before += holder->size();
    const int64_t begin = before + own.begin - holder->begin;
    AppendRange({begin, begin + own.size()}, &places);
  }
  return places;
}

int64_t MaxChoices(const Plan& plan) {
  int64_t most = 0;
  for (const LayerPlan& layer : plan.layers) {
    if (layer.decider < 0) continue;
    int64_t n_neurons = 0;
    for (int32_t r = 0; r < plan.n_ranks(); ++r) {
      if (plan.ranks[r].kind == RankKind::kGpu) continue;
      for (const Range& range : layer.neurons[r]) n_neurons += range.size();
    }
    most = std::max(most, n_neurons);
  }
  return most;
}

}  // namespace thermocline
