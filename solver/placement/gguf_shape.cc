// The shape of a model as its GGUF's keys and tensor table tell it.
#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "common/plan/plan.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "kernels/cuda/neurons.h"
#include "solver/placement/model_shape.h"

namespace thermocline {
namespace {

// Bounds as in common/model/config.cc: products of dimensions fit in 64 bits.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxContext = 1 << 30;

absl::Status ReadDimensions(const GgufFile& file, ModelShape* shape) {
  ASSIGN_OR_RETURN(const std::string arch, file.GetString("general.architecture"));
  const auto key = [&](const char* name) { return arch + "." + name; };
  const auto optional = [&](const char* name, int64_t max,
                            int64_t fallback) -> absl::StatusOr<int64_t> {
    if (!file.Has(key(name))) return fallback;
    return file.GetInt(key(name), 1, max);
  };
  ModelConfig& config = shape->config;
  config.architecture = arch;
  ASSIGN_OR_RETURN(config.n_layers, file.GetInt(key("block_count"), 1, kMaxLayers));
  ASSIGN_OR_RETURN(config.d_model, file.GetInt(key("embedding_length"), 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.d_ff, file.GetInt(key("feed_forward_length"), 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.n_heads, file.GetInt(key("attention.head_count"), 1, kMaxHeads));
  ASSIGN_OR_RETURN(config.n_kv_heads,
                   optional("attention.head_count_kv", config.n_heads, config.n_heads));
  ASSIGN_OR_RETURN(config.d_head, optional("attention.key_length", kMaxWidth,
                                           std::max<int64_t>(config.d_model / config.n_heads, 1)));
  ASSIGN_OR_RETURN(config.n_ctx_train, optional("context_length", kMaxContext, 4096));
  if (file.Has(key("expert_count"))) {
    ASSIGN_OR_RETURN(shape->n_experts, file.GetInt(key("expert_count"), 0, kMaxExperts));
  }
  if (shape->n_experts > 1) {
    ASSIGN_OR_RETURN(shape->n_experts_used,
                     file.GetInt(key("expert_used_count"), 1, shape->n_experts));
    ASSIGN_OR_RETURN(config.d_ff, optional("expert_feed_forward_length", kMaxWidth, config.d_ff));
    config.d_ff *= shape->n_experts;
  }
  shape->n_experts = std::max<int64_t>(shape->n_experts, 1);
  std::string activation = file.is_powerinfer() || arch == "bamboo" ? "relu" : "silu";
  if (file.Has(key("hidden_activation"))) {
    ASSIGN_OR_RETURN(activation, file.GetString(key("hidden_activation")));
  }
  config.activation = activation == "relu" ? Activation::kRelu : Activation::kSilu;
  return absl::OkStatus();
}

// Of ffn_down [d_model, d_ff] as a GPU rank holds it, for types and sizes that there are planes of.
void SetGpuDown(const GgufTensor& tensor, LayerShape* layer) {
  const int64_t n_neurons = tensor.dims[0], d_model = tensor.n_rows();
  const TypeInfo* info = type_info(tensor.type);
  if (info == nullptr || info->is_float || n_neurons % kNeuronUnit != 0 || d_model % 32 != 0) {
    return;
  }
  const auto bytes = [&](int64_t n_blocks) {
    return static_cast<double>(kernels::device_neuron_bytes(
        kernels::device_neuron_layout(tensor.type, n_neurons, n_blocks, d_model)));
  };
  layer->gpu_down_bytes = bytes(0) / static_cast<double>(n_neurons);
  layer->gpu_plane_bytes = bytes(n_neurons / kNeuronUnit) - bytes(0);
}

// Adds a tensor "blk.<layer>.<name>" to what it is part of; d_ff neurons share the FFN's.
void AddTensor(const std::string& name, const GgufTensor& tensor, double d_ff, LayerShape* layer,
               double* weight_bits) {
  const double bytes = static_cast<double>(tensor.n_bytes);
  const double bits = bytes * 8 / (static_cast<double>(tensor.dims[0] * tensor.n_rows()));
  const auto is = [&](const char* role) {
    return name == fmt::format("{}.weight", role) || name == fmt::format("{}_exps.weight", role);
  };
  if (is("ffn_gate")) {
    layer->gate_bytes = bytes / d_ff;
    *weight_bits = bits;
  } else if (is("ffn_up")) {
    layer->up_bytes = bytes / d_ff;
    if (*weight_bits == 0) *weight_bits = bits;
  } else if (is("ffn_down") || is("ffn_down_t")) {
    layer->down_bytes = layer->gpu_down_bytes = bytes / d_ff;
    if (name == "ffn_down.weight") SetGpuDown(tensor, layer);
  } else if (absl::StartsWith(name, "fc1.")) {
    layer->fc1_bytes += bytes;
  } else if (absl::StartsWith(name, "fc2.")) {
    layer->fc2_neuron_bytes += bytes / d_ff;
  } else {
    layer->attention_bytes += bytes;
  }
}

// "blk.12.attn_q.weight" -> 12 and "attn_q.weight"; -1 for what is in no layer.
int64_t SplitName(const std::string& name, std::string* rest) {
  if (!absl::StartsWith(name, "blk.")) return -1;
  const size_t dot = name.find('.', 4);
  if (dot == std::string::npos || dot == 4 || dot > 4 + 6) return -1;
  int64_t layer = 0;
  for (size_t i = 4; i < dot; ++i) {
    if (name[i] < '0' || name[i] > '9') return -1;
    layer = layer * 10 + (name[i] - '0');
  }
  *rest = name.substr(dot + 1);
  return layer;
}

}  // namespace

absl::StatusOr<ModelShape> ShapeOfGguf(const GgufFile& file) {
  ModelShape shape;
  shape.name = file.path();
  RETURN_IF_ERROR(ReadDimensions(file, &shape));
  ModelConfig& config = shape.config;
  shape.layers.resize(config.n_layers);
  for (const GgufTensor& tensor : file.tensors()) {
    std::string rest;
    const int64_t layer = SplitName(tensor.name, &rest);
    if (layer < 0 || layer >= config.n_layers) continue;
    AddTensor(rest, tensor, static_cast<double>(config.d_ff), &shape.layers[layer],
              &shape.weight_bits);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const LayerShape& layer = shape.layers[i];
    if (layer.up_bytes > 0 && layer.down_bytes > 0 && layer.attention_bytes > 0) continue;
    return absl::InvalidArgumentError(
        fmt::format("{}: layer {} has no {}: the file is not one of a model that can be planned",
                    file.path(), i,
                    layer.up_bytes <= 0     ? "ffn_up"
                    : layer.down_bytes <= 0 ? "ffn_down"
                                            : "attention"));
  }
  const GgufTensor* output = file.FindTensor("output.weight");
  if (output == nullptr) output = file.FindTensor("token_embd.weight");
  if (output == nullptr || output->dims[1] > kMaxVocab) {
    return absl::InvalidArgumentError(
        fmt::format("{}: there is neither an output.weight nor a token_embd.weight of a possible "
                    "shape",
                    file.path()));
  }
  config.n_vocab = output->dims[1];
  shape.output_bytes = static_cast<double>(output->n_bytes);
  return shape;
}

absl::Status AddPredictor(const GgufFile& file, ModelShape* shape) {
  for (LayerShape& layer : shape->layers) layer.fc1_bytes = layer.fc2_neuron_bytes = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    std::string rest;
    const int64_t layer = SplitName(tensor.name, &rest);
    if (layer < 0 || layer >= shape->config.n_layers || !absl::StartsWith(rest, "fc")) continue;
    double unused = 0;
    AddTensor(rest, tensor, static_cast<double>(shape->config.d_ff), &shape->layers[layer],
              &unused);
  }
  const auto missing = std::find_if_not(shape->layers.begin(), shape->layers.end(),
                                        [](const LayerShape& l) { return l.has_predictor(); });
  if (missing == shape->layers.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: layer {} has no fc1", file.path(), missing - shape->layers.begin()));
}

}  // namespace thermocline
