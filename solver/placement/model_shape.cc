// Described shapes: published dimensions and the bits that a quantization spends on each matrix.
// Shapes of files are gguf_shape.cc.
#include "solver/placement/model_shape.h"

#include <numeric>

#include "absl/strings/str_join.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "kernels/cuda/device_ops.h"

namespace thermocline {
namespace {

// Published configurations. n_matrices: 3 with a gate, 2 without. Mixtures: d_ff is one expert's.
struct KnownShape {
  const char* name;
  int64_t n_layers, d_model, d_ff, n_heads, n_kv_heads, n_vocab;
  int n_matrices;
  int64_t n_experts, n_experts_used;
  Activation activation;
};
constexpr KnownShape kKnownShapes[] = {
    {"7b", 32, 4096, 11008, 32, 32, 32000, 3, 1, 1, Activation::kSilu},     // Llama 2
    {"13b", 40, 5120, 13824, 40, 40, 32000, 3, 1, 1, Activation::kSilu},    // Llama 2
    {"34b", 48, 8192, 22016, 64, 8, 32000, 3, 1, 1, Activation::kSilu},     // Code Llama
    {"70b", 80, 8192, 28672, 64, 8, 32000, 3, 1, 1, Activation::kSilu},     // Llama 2
    {"yi-34b", 60, 7168, 20480, 56, 8, 64000, 3, 1, 1, Activation::kSilu},  // 60 layers
    {"bamboo-7b", 32, 4096, 14336, 32, 8, 32000, 3, 1, 1, Activation::kRelu},
    {"opt-30b", 48, 7168, 28672, 56, 56, 50272, 2, 1, 1, Activation::kRelu},
    {"falcon-40b", 60, 8192, 32768, 128, 8, 65024, 2, 1, 1, Activation::kRelu},
    {"mixtral-8x7b", 32, 4096, 14336, 32, 8, 32000, 3, 8, 2, Activation::kSilu},
};

// Bits of a weight in each matrix, scales included. q4_k_m: Q4_K, but Q6_K for the output and for
// half of the layers' ffn_down and attn_v.
struct KnownType {
  const char* name;
  double bits, attention_v_bits, down_bits, output_bits;
};
constexpr double kQ4K = 4.5, kQ6K = 6.5625;
constexpr KnownType kKnownTypes[] = {
    {"f16", 16, 16, 16, 16},
    {"q8_0", 8.5, 8.5, 8.5, 8.5},
    {"q4_0", 4.5, 4.5, 4.5, kQ6K},
    {"q4_k_m", kQ4K, (kQ4K + kQ6K) / 2, (kQ4K + kQ6K) / 2, kQ6K},
};

template <typename Row, size_t kRows>
const Row* FindRow(const Row (&rows)[kRows], const std::string& name) {
  for (const Row& row : rows) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

template <typename Row, size_t kRows>
std::vector<std::string> Names(const Row (&rows)[kRows]) {
  std::vector<std::string> names;
  for (const Row& row : rows) names.push_back(row.name);
  return names;
}

LayerShape DescribeLayer(const KnownShape& known, const KnownType& type, double predictor_share) {
  const auto bytes = [](double weights, double bits) { return weights * bits / 8; };
  const double d_model = static_cast<double>(known.d_model);
  const double d_kv =
      d_model / static_cast<double>(known.n_heads) * static_cast<double>(known.n_kv_heads);
  LayerShape layer;
  layer.attention_bytes = bytes(2 * d_model * d_model + d_model * d_kv, type.bits) +  // q, o, k
                          bytes(d_model * d_kv, type.attention_v_bits);
  layer.gate_bytes = known.n_matrices == 3 ? bytes(d_model, type.bits) : 0;
  layer.up_bytes = bytes(d_model, type.bits);
  layer.down_bytes = layer.gpu_down_bytes = bytes(d_model, type.down_bits);
  if (predictor_share > 0) {
    const double n_neurons = static_cast<double>(known.d_ff * known.n_experts);
    const double total =
        predictor_share * (layer.attention_bytes + n_neurons * layer.neuron_bytes());
    const double rank_bytes = total / (d_model + n_neurons);  // of fc1 and fc2, for each unit
    layer.fc1_bytes = rank_bytes * d_model;
    layer.fc2_neuron_bytes = rank_bytes;
  }
  return layer;
}

}  // namespace

double ModelShape::kv_token_bytes() const {
  return 2.0 * 2.0 * static_cast<double>(config.n_kv_heads * config.d_head);  // K and V, f16
}

double ModelShape::gpu_kv_token_bytes() const {
  return gpu_kv_share * 2.0 * 2.0 *
         static_cast<double>(config.n_kv_heads * kernels::device_kv_row(config.d_head));
}

double ModelShape::total_bytes() const {
  return std::accumulate(layers.begin(), layers.end(), output_bytes,
                         [&](double sum, const LayerShape& layer) {
                           return sum + layer.attention_bytes +
                                  static_cast<double>(config.d_ff) * layer.neuron_bytes();
                         });
}

absl::StatusOr<ModelShape> DescribeShape(const ShapeDescription& description) {
  const KnownShape* known = FindRow(kKnownShapes, description.shape);
  if (known == nullptr) {
    return absl::InvalidArgumentError(fmt::format("no shape is known as \"{}\"; known: {}",
                                                  description.shape,
                                                  absl::StrJoin(DescribedShapeNames(), ", ")));
  }
  const KnownType* type = FindRow(kKnownTypes, description.type);
  if (type == nullptr) {
    return absl::InvalidArgumentError(fmt::format("no weight type is known as \"{}\"; known: {}",
                                                  description.type,
                                                  absl::StrJoin(DescribedTypeNames(), ", ")));
  }
  ModelShape shape;
  shape.name = fmt::format(
      "{} {}{}", known->name, type->name,
      description.is_relu && known->activation != Activation::kRelu ? " (ReLU variant)" : "");
  shape.n_experts = known->n_experts;
  shape.n_experts_used = known->n_experts_used;
  shape.weight_bits = type->bits;
  ModelConfig& config = shape.config;
  config.n_layers = known->n_layers;
  config.d_model = known->d_model;
  config.d_ff = known->d_ff * known->n_experts;
  config.n_heads = known->n_heads;
  config.n_kv_heads = known->n_kv_heads;
  config.d_head = known->d_model / known->n_heads;
  config.n_vocab = known->n_vocab;
  config.n_ctx_train = 4096;
  config.activation = description.is_relu ? Activation::kRelu : known->activation;
  shape.layers.assign(known->n_layers, DescribeLayer(*known, *type, description.predictor_share));
  shape.output_bytes = static_cast<double>(known->n_vocab * known->d_model) * type->output_bits / 8;
  return shape;
}

std::vector<std::string> DescribedShapeNames() { return Names(kKnownShapes); }
std::vector<std::string> DescribedTypeNames() { return Names(kKnownTypes); }

}  // namespace thermocline
