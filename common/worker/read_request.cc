// The fields of a ConfigureRequest against the model's dimensions.
#include "common/worker/read_request.h"

#include <algorithm>
#include <cmath>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// A range within [0, total), cut at multiples of `unit` (or at the end).
absl::StatusOr<Range> ReadRange(const worker::v1::Range& message, int64_t total, int64_t unit,
                                const std::string& what) {
  const Range range = {message.begin(), message.end()};
  const bool is_cut_well = range.size() == 0 || (range.begin % unit == 0 &&
                                                 (range.end % unit == 0 || range.end == total));
  if (range.begin < 0 || range.end < range.begin || range.end > total || !is_cut_well) {
    return absl::InvalidArgumentError(
        fmt::format("{} [{}, {}) is not a range within [0, {}) cut at multiples of {}", what,
                    range.begin, range.end, total, unit));
  }
  return range;
}

absl::Status ReadMode(const worker::v1::LayerShard& message, const std::string& where,
                      ShardSpec::Layer* layer) {
  using worker::v1::LayerShard;
  if (!LayerShard::Mode_IsValid(message.mode())) {
    return absl::InvalidArgumentError(where + "mode is none that this worker knows");
  }
  layer->mode = static_cast<Sparsity>(message.mode());
  const bool is_sketch = layer->mode == Sparsity::kSketch;
  if (is_sketch ? message.sketch_bits() < 1 || message.sketch_bits() > kMaxSketchBits
                : message.sketch_bits() != 0) {
    return absl::InvalidArgumentError(fmt::format("{}sketch_bits {} does not go with mode {}",
                                                  where, message.sketch_bits(),
                                                  SparsityName(layer->mode)));
  }
  if (!std::isfinite(message.threshold())) {
    return absl::InvalidArgumentError(where + "threshold is not a finite number");
  }
  layer->sketch_bits = message.sketch_bits();
  layer->threshold = message.threshold();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Range>> ReadNeurons(
    const google::protobuf::RepeatedField<uint32_t>& bounds, const ModelConfig& config,
    const std::string& what) {
  if (bounds.size() % 2 != 0) return absl::InvalidArgumentError(what + " are not pairs");
  std::vector<Range> neurons;
  for (int i = 0; i < bounds.size(); i += 2) {
    worker::v1::Range part;
    part.set_begin(bounds[i]);
    part.set_end(bounds[i + 1]);
    ASSIGN_OR_RETURN(const Range range, ReadRange(part, config.d_ff, 1, what));
    if (!neurons.empty() && range.begin < neurons.back().end) {
      return absl::InvalidArgumentError(what + " are not in ascending order");
    }
    if (range.size() > 0) neurons.push_back(range);
  }
  return neurons;
}

bool IsTailOf(const ModelConfig& config, const TailShape& tail) {
  return tail.begin == 0 || (tail.n_heads == config.n_heads &&
                             tail.n_kv_heads == config.n_kv_heads && tail.d_head == config.d_head);
}

// n_choices: those that there is room for in the exchange.
absl::Status CheckChoices(const ShardSpec::Layer& layer, const ModelConfig& config,
                          int64_t n_choices, const std::string& where) {
  if (layer.decided.empty() && layer.choices.empty()) return absl::OkStatus();
  const bool has_all = layer.kv_heads.size() == config.n_kv_heads;
  const bool decides_well = layer.decided.empty() || has_all;
  const bool fits = TotalSize(layer.decided) <= n_choices &&
                    (layer.choices.empty() || layer.choices.back().end <= n_choices);
  const bool are_own =
      layer.choices.empty() || TotalSize(layer.choices) == TotalSize(layer.neurons);
  if (layer.mode == Sparsity::kPredict && decides_well && fits && are_own) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}decided neurons and choices go with mode predict, the former with all "
                  "kv_heads, the latter one for each neuron, both up to the exchange's {}",
                  where, n_choices));
}

absl::Status CheckStreaming(const ShardSpec& spec) {
  const bool streams = std::any_of(spec.layers.begin(), spec.layers.end(),
                                   [](const auto& layer) { return !layer.streamed.empty(); });
  const bool is_never = spec.stream_tokens == 0;
  if (is_never ? !streams : spec.stream_tokens >= kMinStreamTokens) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("stream_tokens {} is not {} or more, nor 0 without streamed neurons",
                  spec.stream_tokens, kMinStreamTokens));
}

}  // namespace

absl::StatusOr<ShardSpec> SpecFromRequest(const worker::v1::ConfigureRequest& request,
                                          const ModelConfig& config) {
  if (request.layers_size() != config.n_layers) {
    return absl::InvalidArgumentError(
        fmt::format("layers: {} given, the model has {}", request.layers_size(), config.n_layers));
  }
  ShardSpec spec;
  for (int i = 0; i < request.layers_size(); ++i) {
    const worker::v1::LayerShard& message = request.layers(i);
    const std::string where = fmt::format("layer {}: ", i);
    ShardSpec::Layer layer;
    ASSIGN_OR_RETURN(layer.kv_heads, ReadRange(message.kv_heads(), config.n_kv_heads,
                                               config.kv_heads_per_unit(), where + "kv_heads"));
    ASSIGN_OR_RETURN(layer.tail_heads, ReadRange(message.tail_heads(), config.n_kv_heads,
                                                 config.kv_heads_per_unit(), where + "tail_heads"));
    const int32_t tail_begin = request.exchange().tail_begin();
    const bool has_tail = 0 < tail_begin && tail_begin < request.n_ctx();
    if (layer.tail_heads.size() > 0 && (layer.kv_heads.size() > 0 || !has_tail)) {
      return absl::InvalidArgumentError(
          where + "tail_heads go with a tail_begin below n_ctx, and without kv_heads");
    }
    RETURN_IF_ERROR(ReadMode(message, where, &layer));
    ASSIGN_OR_RETURN(layer.neurons,
                     ReadNeurons(message.neuron_bounds(), config, where + "neurons"));
    ASSIGN_OR_RETURN(layer.streamed,
                     ReadNeurons(message.streamed_bounds(), config, where + "streamed neurons"));
    ASSIGN_OR_RETURN(layer.decided,
                     ReadNeurons(message.decided_bounds(), config, where + "decided neurons"));
    ASSIGN_OR_RETURN(layer.choices,
                     ReadNeurons(message.choice_bounds(), config, where + "choices"));
    RETURN_IF_ERROR(CheckChoices(layer, config, request.exchange().n_choices(), where));
    spec.layers.push_back(std::move(layer));
  }
  spec.f32_activations = request.f32_activations();
  spec.stream_tokens = request.stream_tokens();
  RETURN_IF_ERROR(CheckStreaming(spec));
  ASSIGN_OR_RETURN(spec.vocab, ReadRange(request.vocab(), config.n_vocab, 1, "vocab"));
  return spec;
}

absl::StatusOr<ExchangeShape> ShapeFromRequest(const worker::v1::ConfigureRequest& request,
                                               const ModelConfig& config) {
  const worker::v1::ExchangeShape& message = request.exchange();
  ExchangeShape shape;
  shape.n_ranks = message.n_ranks();
  shape.max_tokens = message.max_tokens();
  shape.d_model = message.d_model();
  shape.n_layers = message.n_layers();
  shape.n_vocab = message.n_vocab();
  shape.max_logit_rows = message.max_logit_rows();
  shape.tail = {message.tail_begin(), message.n_heads(), message.n_kv_heads(), message.d_head()};
  shape.n_choices = message.n_choices();
  RETURN_IF_ERROR(shape.Check());
  if (shape.n_ranks != request.n_ranks() || shape.d_model != config.d_model ||
      shape.n_layers != config.n_layers || shape.n_vocab != config.n_vocab ||
      !IsTailOf(config, shape.tail)) {
    return absl::InvalidArgumentError("exchange: the shape does not fit the model and the ranks");
  }
  if (request.rank() < 0 || request.rank() >= request.n_ranks()) {
    return absl::InvalidArgumentError(
        fmt::format("rank {} of {} ranks does not exist", request.rank(), request.n_ranks()));
  }
  return shape;
}

}  // namespace thermocline
