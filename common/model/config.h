// What a model is, read from a GGUF's keys: dimensions, norm, RoPE, activation. No tensors
// (tensor_table.h), no weights.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"

namespace thermocline {

// Of an FFN: act(gate) * up; of kReluRelu relu(gate) * relu(up).
enum class Activation { kRelu, kSilu, kReluRelu };

// Whether a neuron whose gate is not above 0 is left out exactly.
constexpr bool IsRelu(Activation activation) { return activation != Activation::kSilu; }

struct ModelConfig {
  std::string architecture;  // "llama", "bamboo"
  std::string name;          // general.name, or ""
  int64_t n_layers = 0;
  int64_t d_model = 0;
  int64_t d_ff = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t d_head = 0;
  int64_t n_rot = 0;  // dimensions of a head that RoPE turns
  int64_t n_vocab = 0;
  int64_t n_ctx_train = 0;
  float norm_eps = 0;
  double rope_freq_base = 10000;
  double rope_freq_scale = 1;  // positions are multiplied by it (1 / linear scaling factor)
  Activation activation = Activation::kSilu;

  int64_t group_size() const { return n_heads / n_kv_heads; }  // query heads of a KV head
  // KV heads can only be split in units whose query columns are a multiple of 32.
  int64_t kv_heads_per_unit() const;
};

// "relu", "silu", "relu_relu"; InvalidArgument names the known ones.
absl::StatusOr<Activation> ParseActivation(const std::string& name);

// Reads and checks the keys. Unimplemented for an architecture, RoPE scaling or activation that is
// not known here; InvalidArgument for a missing or impossible value; each names the key.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace thermocline
