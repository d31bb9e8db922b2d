// The fields of a ConfigureRequest against the model's dimensions.
#include "common/worker/read_request.h"

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

absl::StatusOr<std::vector<Range>> ReadNeurons(const worker::v1::LayerShard& message,
                                               const ModelConfig& config,
                                               const std::string& where) {
  if (message.neuron_bounds_size() % 2 != 0) {
    return absl::InvalidArgumentError(where + "neuron_bounds are not pairs");
  }
  std::vector<Range> neurons;
  for (int i = 0; i < message.neuron_bounds_size(); i += 2) {
    worker::v1::Range part;
    part.set_begin(message.neuron_bounds(i));
    part.set_end(message.neuron_bounds(i + 1));
    ASSIGN_OR_RETURN(const Range range, ReadRange(part, config.d_ff, 1, where + "neurons"));
    if (!neurons.empty() && range.begin < neurons.back().end) {
      return absl::InvalidArgumentError(where + "neurons are not in ascending order");
    }
    if (range.size() > 0) neurons.push_back(range);
  }
  return neurons;
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
    RETURN_IF_ERROR(ReadMode(message, where, &layer));
    ASSIGN_OR_RETURN(layer.neurons, ReadNeurons(message, config, where));
    spec.layers.push_back(std::move(layer));
  }
  spec.f32_activations = request.f32_activations();
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
  RETURN_IF_ERROR(shape.Check());
  if (shape.n_ranks != request.n_ranks() || shape.d_model != config.d_model ||
      shape.n_layers != config.n_layers || shape.n_vocab != config.n_vocab) {
    return absl::InvalidArgumentError("exchange: the shape does not fit the model and the ranks");
  }
  if (request.rank() < 0 || request.rank() >= request.n_ranks()) {
    return absl::InvalidArgumentError(
        fmt::format("rank {} of {} ranks does not exist", request.rank(), request.n_ranks()));
  }
  return shape;
}

}  // namespace thermocline
