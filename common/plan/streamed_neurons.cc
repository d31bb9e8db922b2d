// Sharing out the neurons that long prompts stream.
#include "common/plan/streamed_neurons.h"

#include <algorithm>

namespace thermocline {
namespace {

// Ascending pieces, those that touch as one.
void Append(const Range& piece, std::vector<Range>* ranges) {
  if (!ranges->empty() && ranges->back().end == piece.begin) {
    ranges->back().end = piece.end;
  } else {
    ranges->push_back(piece);
  }
}

}  // namespace

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
      Append({begin, end}, &runs[run]);
      seen += end - begin;
    }
  }
  return runs;
}

std::vector<Range> StreamedNeurons(const Plan& plan, int64_t layer, int32_t rank,
                                   const std::vector<int32_t>& order) {
  if (plan.stream_tokens == 0 || plan.ranks[rank].kind != RankKind::kGpu) return {};
  std::vector<Range> pieces, held;
  int64_t n_gpus = 0, number = 0;  // of the rank among GPU ranks
  for (int32_t r = 0; r < plan.n_ranks(); ++r) {
    if (plan.ranks[r].kind == RankKind::kGpu) {
      if (r < rank) ++number;
      ++n_gpus;
      continue;
    }
    const std::vector<Range> own = FileNeurons(plan.layers[layer], r, order);
    pieces.insert(pieces.end(), own.begin(), own.end());
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (const Range& piece : pieces) Append(piece, &held);
  return CutNeurons(held, n_gpus)[number];
}

}  // namespace thermocline
