// Reads a model's dimensions from a GGUF's keys and refuses what cannot be. Tensors:
// tensor_table.cc.
#include "common/model/config.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// One row per architecture: adding one starts here (its tensors: tensor_table.cc).
struct Architecture {
  const char* name;       // general.architecture, and the prefix of the model's keys
  Activation activation;  // when the file names none
};
constexpr Architecture kArchitectures[] = {
    {"llama", Activation::kSilu},
    {"bamboo", Activation::kReluRelu},
};

struct NamedActivation {
  Activation activation;
  const char* name;
};
constexpr NamedActivation kActivations[] = {
    {Activation::kRelu, "relu"},
    {Activation::kSilu, "silu"},
    {Activation::kReluRelu, "relu_relu"},
};

// Bounds that hold for every model, so that products of dimensions fit in 64 bits with room.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxWidth = 1 << 20;  // d_model, d_ff
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadWidth = 512;  // what the attention kernels are made for
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxContext = 1 << 30;

// Reads "<architecture>.<name>" keys; every error names file and key.
class Keys {
 public:
  Keys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string Name(const std::string& name) const { return prefix_ + "." + name; }
  bool Has(const std::string& name) const { return file_.Has(Name(name)); }

  // `fallback` stands for an absent key; without it the key must be there.
  absl::StatusOr<int64_t> Int(const std::string& name, int64_t min, int64_t max,
                              std::optional<int64_t> fallback = std::nullopt) const {
    if (fallback.has_value() && !Has(name)) return *fallback;
    if (file_.GetInts(Name(name)).ok()) {
      return absl::UnimplementedError(fmt::format(
          "{}: key {} holds a value per layer; only models whose layers are all alike are computed",
          file_.path(), Quoted(Name(name))));
    }
    return file_.GetInt(Name(name), min, max);
  }

  // A finite number above 0, also as f32.
  absl::StatusOr<double> Positive(const std::string& name,
                                  std::optional<double> fallback = std::nullopt) const {
    if (fallback.has_value() && !Has(name)) return *fallback;
    ASSIGN_OR_RETURN(const double value, file_.GetFloat(Name(name)));
    if (value < std::numeric_limits<float>::min() || value > std::numeric_limits<float>::max()) {
      return Wrong(name, fmt::format("is {}; it must be a number above 0", value));
    }
    return value;
  }

  absl::StatusOr<std::string> String(const std::string& name) const {
    return file_.GetString(Name(name));
  }

  absl::Status Wrong(const std::string& name, const std::string& what) const {
    return absl::InvalidArgumentError(
        fmt::format("{}: key {} {}", file_.path(), Quoted(Name(name)), what));
  }
  absl::Status NotComputed(const std::string& name, const std::string& what) const {
    return absl::UnimplementedError(
        fmt::format("{}: key {} {}", file_.path(), Quoted(Name(name)), what));
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;
};

absl::StatusOr<const Architecture*> FindArchitecture(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string name, file.GetString("general.architecture"));
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return &architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return absl::UnimplementedError(fmt::format("{}: architecture {} is not computed here; known: {}",
                                              file.path(), Quoted(name), known));
}

absl::Status RefusePartOfSplitModel(const GgufFile& file) {
  if (!file.Has("split.count")) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t count,
                   file.GetInt("split.count", 0, std::numeric_limits<int64_t>::max()));
  if (count <= 1) return absl::OkStatus();
  return absl::UnimplementedError(
      fmt::format("{}: is one of {} parts of a split model; join them into one file first",
                  file.path(), count));
}

// The vocabulary's size: a key of its own, or else what the file holds of it.
absl::StatusOr<int64_t> ReadVocab(const GgufFile& file, const Keys& keys) {
  int64_t n_vocab;
  if (keys.Has("vocab_size")) {
    ASSIGN_OR_RETURN(n_vocab, keys.Int("vocab_size", 1, kMaxVocab));
  } else if (const GgufTensor* embedding = file.FindTensor("token_embd.weight")) {
    n_vocab = embedding->dims[1];
  } else {
    ASSIGN_OR_RETURN(const std::vector<std::string>* tokens,
                     file.GetStrings("tokenizer.ggml.tokens"));
    n_vocab = static_cast<int64_t>(tokens->size());
  }
  if (n_vocab >= 1 && n_vocab <= kMaxVocab) return n_vocab;
  return absl::InvalidArgumentError(fmt::format(
      "{}: a vocabulary of {} tokens; 1 to {} is possible", file.path(), n_vocab, kMaxVocab));
}

absl::Status ReadHeads(const Keys& keys, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->n_heads, keys.Int("attention.head_count", 1, kMaxHeads));
  ASSIGN_OR_RETURN(config->n_kv_heads,
                   keys.Int("attention.head_count_kv", 1, kMaxHeads, config->n_heads));
  if (config->n_heads % config->n_kv_heads != 0) {
    return keys.Wrong("attention.head_count_kv",
                      fmt::format("is {}, which does not divide the {} heads", config->n_kv_heads,
                                  config->n_heads));
  }
  if (!keys.Has("attention.key_length") && config->d_model % config->n_heads != 0) {
    return keys.Wrong("attention.head_count",
                      fmt::format("is {}, which does not divide the embedding length {}",
                                  config->n_heads, config->d_model));
  }
  ASSIGN_OR_RETURN(config->d_head, keys.Int("attention.key_length", 1, kMaxHeadWidth,
                                            config->d_model / config->n_heads));
  if (config->d_head > kMaxHeadWidth) {
    return keys.NotComputed("attention.head_count",
                            fmt::format("makes heads of {} values; at most {} are computed",
                                        config->d_head, kMaxHeadWidth));
  }
  ASSIGN_OR_RETURN(const int64_t value_length,
                   keys.Int("attention.value_length", 1, kMaxHeadWidth, config->d_head));
  if (value_length != config->d_head) {
    return keys.NotComputed("attention.value_length",
                            fmt::format("is {}, the heads' keys have {} values; only equal lengths "
                                        "are computed",
                                        value_length, config->d_head));
  }
  ASSIGN_OR_RETURN(config->n_rot,
                   keys.Int("rope.dimension_count", 2, config->d_head, config->d_head));
  if (config->n_rot % 2 != 0) {
    return keys.Wrong("rope.dimension_count", fmt::format("is {}, which is odd", config->n_rot));
  }
  return absl::OkStatus();
}

// How positions are stretched. "linear" is also what a scaling factor without a type means, and
// what files older than rope.scaling.* say by rope.scale_linear.
absl::Status ReadRope(const Keys& keys, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->rope_freq_base, keys.Positive("rope.freq_base", 10000));
  std::string type = "linear";
  if (keys.Has("rope.scaling.type")) {
    ASSIGN_OR_RETURN(type, keys.String("rope.scaling.type"));
  }
  if (type == "none") return absl::OkStatus();
  if (type != "linear") {
    return keys.NotComputed("rope.scaling.type",
                            fmt::format("is {}; known: none, linear", Quoted(type)));
  }
  ASSIGN_OR_RETURN(const double legacy, keys.Positive("rope.scale_linear", 1));
  ASSIGN_OR_RETURN(const double factor, keys.Positive("rope.scaling.factor", legacy));
  config->rope_freq_scale = 1 / factor;
  return absl::OkStatus();
}

// What a file that does not name it means. PowerInfer writes its files, and transposes ffn_down,
// for ReLU models alone.
Activation DefaultActivation(const GgufFile& file, const Architecture& architecture) {
  const bool is_powerinfer =
      file.is_powerinfer() || file.FindTensor("blk.0.ffn_down_t.weight") != nullptr;
  if (is_powerinfer && !IsRelu(architecture.activation)) return Activation::kRelu;
  return architecture.activation;
}

absl::StatusOr<Activation> ReadActivation(const GgufFile& file, const Keys& keys,
                                          const Architecture& architecture) {
  if (!keys.Has("hidden_activation")) return DefaultActivation(file, architecture);
  ASSIGN_OR_RETURN(const std::string name, keys.String("hidden_activation"));
  const absl::StatusOr<Activation> activation = ParseActivation(name);
  if (!activation.ok()) {
    return keys.NotComputed("hidden_activation", std::string(activation.status().message()));
  }
  // Bamboo's own configuration says "relu" and means gate and up.
  const bool is_relu = *activation == Activation::kRelu;
  return is_relu && IsRelu(architecture.activation) ? architecture.activation : *activation;
}

}  // namespace

int64_t ModelConfig::kv_heads_per_unit() const {
  return 32 / std::gcd(int64_t{32}, group_size() * d_head);
}

absl::StatusOr<Activation> ParseActivation(const std::string& name) {
  std::string known;
  for (const NamedActivation& row : kActivations) {
    if (name == row.name) return row.activation;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  return absl::InvalidArgumentError(
      fmt::format("is {}, an unknown activation; known: {}", Quoted(name), known));
}

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  RETURN_IF_ERROR(RefusePartOfSplitModel(file));
  ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(file));
  const Keys keys(file, architecture->name);
  ModelConfig config;
  config.architecture = architecture->name;
  if (file.Has("general.name")) {
    ASSIGN_OR_RETURN(config.name, file.GetString("general.name"));
  }
  ASSIGN_OR_RETURN(const int64_t n_experts, keys.Int("expert_count", 0, kMaxWidth, 0));
  if (n_experts > 0) {
    return keys.NotComputed("expert_count",
                            fmt::format("is {}: mixtures of experts are not computed", n_experts));
  }
  ASSIGN_OR_RETURN(config.n_layers, keys.Int("block_count", 1, kMaxLayers));
  ASSIGN_OR_RETURN(config.d_model, keys.Int("embedding_length", 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.d_ff, keys.Int("feed_forward_length", 1, kMaxWidth));
  ASSIGN_OR_RETURN(config.n_ctx_train, keys.Int("context_length", 1, kMaxContext));
  ASSIGN_OR_RETURN(const double eps, keys.Positive("attention.layer_norm_rms_epsilon"));
  config.norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(config.n_vocab, ReadVocab(file, keys));
  RETURN_IF_ERROR(ReadHeads(keys, &config));
  RETURN_IF_ERROR(ReadRope(keys, &config));
  ASSIGN_OR_RETURN(config.activation, ReadActivation(file, keys, *architecture));
  return config;
}

}  // namespace thermocline
