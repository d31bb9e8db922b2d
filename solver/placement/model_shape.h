// What the planner needs of a model: bytes of attention, of a neuron, of the output matrix, of a
// token's KV cache. From a GGUF's header or a description; no weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"

namespace thermocline {

struct LayerShape {
  double attention_bytes = 0;  // q, k, v, output, norms; in mixtures of experts the router, too
  // Of one neuron: a row of gate and up, a column of down.
  double gate_bytes = 0;  // 0: the FFN has no gate (OPT, Falcon)
  double up_bytes = 0;
  double down_bytes = 0;
  // On a GPU, a stock quantized ffn_down lies otherwise (kernels/cuda/neurons.h): integers by
  // neurons, and scales in planes of 32 neurons of the file, all of which a rank needs whose
  // neurons come from all over the file.
  double gpu_down_bytes = 0;   // of one neuron, without planes
  double gpu_plane_bytes = 0;  // of the whole layer
  // The predictor, if there is one.
  double fc1_bytes = 0;         // [rank, d_model]
  double fc2_neuron_bytes = 0;  // a row of [d_ff, rank]

  double neuron_bytes() const { return gate_bytes + up_bytes + down_bytes; }
  double gpu_neuron_bytes() const { return gate_bytes + up_bytes + gpu_down_bytes; }
  bool has_predictor() const { return fc1_bytes > 0; }
  bool operator==(const LayerShape&) const = default;
};

struct ModelShape {
  std::string name;
  // Dimensions only: n_layers, d_model, d_ff, n_heads, n_kv_heads, d_head, n_vocab, n_ctx_train,
  // activation. In a mixture of experts d_ff counts the neurons of all experts, as the plan does.
  ModelConfig config;
  std::vector<LayerShape> layers;  // [n_layers]
  double weight_bits = 0;          // of a gate weight, scales included (up's without a gate)
  double output_bytes = 0;         // the output matrix
  int64_t n_experts = 1;           // that share d_ff evenly
  int64_t n_experts_used = 1;      // for one token

  double gpu_kv_share = 1;  // of f16, that a GPU's KV cache takes: 0.53 in q8_0

  // KV cache of one token in one layer, f16; on a GPU a head's values are padded.
  double kv_token_bytes() const;
  double gpu_kv_token_bytes() const;
  double total_bytes() const;  // of all that ranks hold of weights, without predictors
};

// Dimensions from the keys, bytes from the tensor table, so any architecture whose tensors are
// named blk.N.attn_*, blk.N.ffn_{gate,up,down}[_exps] (ffn_down_t) will do. InvalidArgument names
// the key or tensor that is missing or impossible.
absl::StatusOr<ModelShape> ShapeOfGguf(const GgufFile& file);

// Adds predictor.gguf's sizes, or those of a PowerInfer model's own fc1 and fc2.
absl::Status AddPredictor(const GgufFile& file, ModelShape* shape);

struct ShapeDescription {
  std::string shape;         // "70b"; DescribedShapeNames
  std::string type = "f16";  // DescribedTypeNames
  bool is_relu = false;      // the ReLU variant of the shape, else as published
  // Predictors' share of the layers' weights; 0: none. PowerInfer (arXiv 2312.12456) says 6 %.
  double predictor_share = 0;
};
absl::StatusOr<ModelShape> DescribeShape(const ShapeDescription& description);
std::vector<std::string> DescribedShapeNames();
std::vector<std::string> DescribedTypeNames();

}  // namespace thermocline
