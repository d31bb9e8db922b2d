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

// It knows h before the others only where all of the attention is its own.
absl::Status CheckDecider(const Plan& plan, const LayerPlan& layer, int64_t index,
                          const ModelConfig& config) {
  if (layer.decider < 0) return absl::OkStatus();
  const bool is_gpu = plan.ranks[layer.decider].kind == RankKind::kGpu;
  const bool has_all = layer.kv_heads[layer.decider].size() == config.n_kv_heads;
  if (layer.mode == Sparsity::kPredict && is_gpu && has_all) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("layer {}: its decider is rank {}; only in mode predict, and only a rank of kind "
                  "gpu that has all kv_heads of the layer, may decide for others",
                  index, layer.decider));
}

absl::Status CheckMode(const LayerPlan& layer, int64_t index, int32_t n_ranks) {
  const bool is_sketch = layer.mode == Sparsity::kSketch;
  if (is_sketch ? layer.sketch_bits < 1 || layer.sketch_bits > kMaxSketchBits
                : layer.sketch_bits != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "layer {}: mode {} with {} sketch bits; mode sketch takes 1 to {}, every other mode none",
        index, SparsityName(layer.mode), layer.sketch_bits, kMaxSketchBits));
  }
  if (layer.decider < -1 || layer.decider >= n_ranks) {
    return absl::InvalidArgumentError(
        fmt::format("layer {}: its decider is rank {}, but there are {} ranks only", index,
                    layer.decider, n_ranks));
  }
  if (!layer.predicted_us.empty() && static_cast<int32_t>(layer.predicted_us.size()) != n_ranks) {
    return absl::InvalidArgumentError(fmt::format("layer {}: us is given for {} of {} ranks", index,
                                                  layer.predicted_us.size(), n_ranks));
  }
  return absl::OkStatus();
}

// Of GPU ranks' heads the tail belongs to CPU ranks; of CPU ranks' own heads it lies with them.
absl::Status CheckTail(const Plan& plan, const LayerPlan& layer, int64_t index,
                       const ModelConfig& config) {
  const size_t n_expected = plan.gpu_ctx > 0 ? plan.ranks.size() : 0;
  if (layer.tail_heads.size() != n_expected) {
    return absl::InvalidArgumentError(fmt::format(
        "layer {}: tail_heads is given for {} ranks; {}", index, layer.tail_heads.size(),
        plan.gpu_ctx > 0 ? fmt::format("with gpu_ctx it takes all {}", n_expected)
                         : std::string("without gpu_ctx it takes none")));
  }
  if (plan.gpu_ctx == 0) return absl::OkStatus();
  if (std::none_of(plan.ranks.begin(), plan.ranks.end(),
                   [](const RankPlan& rank) { return rank.kind == RankKind::kGpu; })) {
    return absl::InvalidArgumentError("gpu_ctx is given, but no rank is of kind gpu");
  }
  std::vector<OwnedRange> parts;
  for (int32_t rank = 0; rank < plan.n_ranks(); ++rank) {
    const Range &own = layer.kv_heads[rank], &tail = layer.tail_heads[rank];
    const bool is_gpu = plan.ranks[rank].kind == RankKind::kGpu;
    if (tail.size() > 0 && (is_gpu || own.size() > 0)) {
      return absl::InvalidArgumentError(
          fmt::format("layer {}: rank {} has tail_heads; only CPU ranks without kv_heads in the "
                      "layer may",
                      index, rank));
    }
    parts.push_back({tail, rank});
    if (!is_gpu) parts.push_back({own, rank});
  }
  return CheckCover(fmt::format("layer {}: the tail of kv_heads", index), std::move(parts),
                    config.n_kv_heads, config.kv_heads_per_unit());
}

absl::Status CheckLayer(const LayerPlan& layer, int64_t index, int32_t n_ranks,
                        const ModelConfig& config, int64_t neuron_unit) {
  if (static_cast<int32_t>(layer.kv_heads.size()) != n_ranks ||
      static_cast<int32_t>(layer.neurons.size()) != n_ranks) {
    return absl::InvalidArgumentError(
        fmt::format("layer {}: kv_heads is given for {} and neurons for {} of {} ranks", index,
                    layer.kv_heads.size(), layer.neurons.size(), n_ranks));
  }
  RETURN_IF_ERROR(CheckMode(layer, index, n_ranks));
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
  return CheckCover(where + "neurons", std::move(neurons), config.d_ff, neuron_unit);
}

absl::Status CheckProfileOf(const Plan& plan, const Profile* profile) {
  if (plan.profile_hash.empty()) return absl::OkStatus();
  if (profile == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("the plan counts neurons in the order of profile {}, but there is no profile; "
                    "give the folder that has it with --predictor-path",
                    plan.profile_hash));
  }
  if (const std::string hash = ProfileHash(*profile); hash != plan.profile_hash) {
    return absl::InvalidArgumentError(
        fmt::format("the plan belongs to another profile: it says {}, this one is {}",
                    plan.profile_hash, hash));
  }
  return absl::OkStatus();
}

absl::Status CheckStreaming(const Plan& plan) {
  if (plan.stream_tokens == 0) return absl::OkStatus();
  if (plan.stream_tokens < kMinStreamTokens) {
    return absl::InvalidArgumentError(
        fmt::format("stream_tokens is {}; 0 or {} and more are possible", plan.stream_tokens,
                    kMinStreamTokens));
  }
  const bool has_gpu = std::any_of(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& rank) {
    return rank.kind == RankKind::kGpu;
  });
  if (has_gpu) return absl::OkStatus();
  return absl::InvalidArgumentError("stream_tokens is given, but no rank is of kind gpu");
}

}  // namespace

absl::Status CheckPlan(const Plan& plan, const ModelConfig& config, const std::string& model_hash,
                       const Profile* profile) {
  if (plan.model_hash != model_hash) {
    return absl::InvalidArgumentError(
        fmt::format("the plan belongs to another model: it says {}, the file is {}",
                    plan.model_hash, model_hash));
  }
  RETURN_IF_ERROR(CheckProfileOf(plan, profile));
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
  RETURN_IF_ERROR(CheckStreaming(plan));
  if (static_cast<int64_t>(plan.layers.size()) != config.n_layers) {
    return absl::InvalidArgumentError(
        fmt::format("the plan has {} layers, the model {}", plan.layers.size(), config.n_layers));
  }
  const int64_t neuron_unit = plan.profile_hash.empty() ? kNeuronUnit : 1;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    RETURN_IF_ERROR(CheckLayer(plan.layers[i], index, n_ranks, config, neuron_unit));
    RETURN_IF_ERROR(CheckTail(plan, plan.layers[i], index, config));
    RETURN_IF_ERROR(CheckDecider(plan, plan.layers[i], index, config));
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
