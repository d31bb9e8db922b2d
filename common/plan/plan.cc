// The check that a plan is complete and fits its model. Its JSON form is plan_json.cc.
#include "common/plan/plan.h"

#include <algorithm>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

struct OwnedRange {
  Range range;
  int32_t rank;
};

// The ranges of all ranks together must cover [0, total) once, with cuts at multiples of `unit`.
absl::Status CheckCover(const std::string& what, std::vector<OwnedRange> parts, int64_t total,
                        int64_t unit) {
  for (const OwnedRange& part : parts) {
    const auto [begin, end] = part.range;
    if (begin < 0 || end < begin || end > total) {
      return absl::InvalidArgumentError(fmt::format("{} [{}, {}) of rank {} is not within [0, {})",
                                                    what, begin, end, part.rank, total));
    }
    const bool is_cut_well = begin % unit == 0 && (end % unit == 0 || end == total);
    if (begin < end && !is_cut_well) {
      return absl::InvalidArgumentError(
          fmt::format("{} [{}, {}) of rank {} must begin and end at a multiple of {}", what, begin,
                      end, part.rank, unit));
    }
  }
  std::erase_if(parts, [](const OwnedRange& part) { return part.range.size() == 0; });
  std::sort(parts.begin(), parts.end(),
            [](const OwnedRange& a, const OwnedRange& b) { return a.range.begin < b.range.begin; });
  int64_t covered = 0;
  for (const OwnedRange& part : parts) {
    if (part.range.begin > covered) {
      return absl::InvalidArgumentError(
          fmt::format("{} [{}, {}) belongs to no rank", what, covered, part.range.begin));
    }
    if (part.range.begin < covered) {
      return absl::InvalidArgumentError(
          fmt::format("{} [{}, {}) of rank {} belongs to another rank, too", what, part.range.begin,
                      std::min(covered, part.range.end), part.rank));
    }
    covered = part.range.end;
  }
  if (covered != total) {
    return absl::InvalidArgumentError(
        fmt::format("{} [{}, {}) belongs to no rank", what, covered, total));
  }
  return absl::OkStatus();
}

absl::Status CheckLayer(const LayerPlan& layer, int64_t index, int32_t n_ranks,
                        const ModelConfig& config) {
  if (static_cast<int32_t>(layer.kv_heads.size()) != n_ranks ||
      static_cast<int32_t>(layer.neurons.size()) != n_ranks) {
    return absl::InvalidArgumentError(
        fmt::format("layer {}: kv_heads is given for {} and neurons for {} of {} ranks", index,
                    layer.kv_heads.size(), layer.neurons.size(), n_ranks));
  }
  std::vector<OwnedRange> heads, neurons;
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    heads.push_back({layer.kv_heads[rank], rank});
    int64_t last = 0;
    for (const Range& range : layer.neurons[rank]) {
      if (range.begin < last) {
        return absl::InvalidArgumentError(fmt::format(
            "layer {}: the neurons of rank {} are not in ascending order", index, rank));
      }
      last = range.end;
      neurons.push_back({range, rank});
    }
  }
  const std::string where = fmt::format("layer {}: ", index);
  RETURN_IF_ERROR(CheckCover(where + "kv_heads", std::move(heads), config.n_kv_heads,
                             config.kv_heads_per_unit()));
  return CheckCover(where + "neurons", std::move(neurons), config.d_ff, kNeuronUnit);
}

}  // namespace

absl::Status CheckPlan(const Plan& plan, const ModelConfig& config, const std::string& model_hash) {
  if (plan.model_hash != model_hash) {
    return absl::InvalidArgumentError(
        fmt::format("the plan belongs to another model: it says {}, the file is {}",
                    plan.model_hash, model_hash));
  }
  const int32_t n_ranks = plan.n_ranks();
  if (n_ranks < 1 || n_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        fmt::format("a plan has 1 to {} ranks, this one has {}", kMaxRanks, n_ranks));
  }
  for (int32_t rank = 0; rank < n_ranks; ++rank) {
    if (plan.ranks[rank].n_threads < 1) {
      return absl::InvalidArgumentError(fmt::format("rank {} has no threads", rank));
    }
  }
  if (static_cast<int64_t>(plan.layers.size()) != config.n_layers) {
    return absl::InvalidArgumentError(
        fmt::format("the plan has {} layers, the model {}", plan.layers.size(), config.n_layers));
  }
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    RETURN_IF_ERROR(CheckLayer(plan.layers[i], static_cast<int64_t>(i), n_ranks, config));
  }
  if (static_cast<int32_t>(plan.vocab.size()) != n_ranks) {
    return absl::InvalidArgumentError(
        fmt::format("vocab is given for {} of {} ranks", plan.vocab.size(), n_ranks));
  }
  std::vector<OwnedRange> vocab;
  for (int32_t rank = 0; rank < n_ranks; ++rank) vocab.push_back({plan.vocab[rank], rank});
  return CheckCover("vocab", std::move(vocab), config.n_vocab, 1);
}

}  // namespace thermocline
