// Sharing out the neurons that long prompts stream.
#include "common/plan/streamed_neurons.h"

#include <algorithm>

#include "common/plan/decided_neurons.h"

namespace thermocline {

std::vector<std::vector<Range>> CutNeurons(const std::vector<Range>& neurons, int64_t n_runs) {
  int64_t total = 0;
  for (const Range& range : neurons) total += range.size();
  std::vector<std::vector<Range>> runs(n_runs);
  int64_t seen = 0, block = -1, run = 0;
  for (const Range& range : neurons) {
    for (int64_t begin = range.begin, end; begin < range.end; begin = end) {
      end = std::min(range.end, (begin / kNeuronUnit + 1) * kNeuronUnit);
      if (begin / kNeuronUnit != block) run = seen * n_runs / total;
      block = begin / kNeuronUnit;
      AppendRange({begin, end}, &runs[run]);
      seen += end - begin;
    }
  }
  return runs;
}

std::vector<Range> StreamedNeurons(const Plan& plan, int64_t layer, int32_t rank,
                                   const std::vector<int32_t>& order) {
  if (plan.stream_tokens == 0 || plan.ranks[rank].kind != RankKind::kGpu) return {};
  int64_t n_gpus = 0, number = 0;  // of the rank among GPU ranks
  for (int32_t r = 0; r < plan.n_ranks(); ++r) {
    if (plan.ranks[r].kind != RankKind::kGpu) continue;
    if (r < rank) ++number;
    ++n_gpus;
  }
  return CutNeurons(NeuronsOfCpus(plan, layer, order), n_gpus)[number];
}

}  // namespace thermocline
