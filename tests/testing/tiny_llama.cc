// Keys, vocabulary and random tensors of a tiny llama model.
#include "tests/testing/tiny_llama.h"

#include <fmt/format.h>

#include <cmath>

namespace thermocline::testing {
namespace {

void AddKeys(const TinyLlama& model, GgufBuilder* builder) {
  const auto key = [&model](const char* name) {
    return fmt::format("{}.{}", model.architecture, name);
  };
  const auto put = [builder, &key](const char* name, int64_t value) {
    builder->Uint(key(name), static_cast<uint32_t>(value));
  };
  builder->String("general.architecture", model.architecture).String("general.name", "tiny");
  put("block_count", model.n_layers);
  put("context_length", model.n_ctx);
  put("embedding_length", model.d_model);
  put("feed_forward_length", model.d_ff);
  put("attention.head_count", model.n_heads);
  put("attention.head_count_kv", model.n_kv_heads);
  put("attention.key_length", model.d_head);
  put("attention.value_length", model.d_head);
  put("rope.dimension_count", model.d_head);
  put("vocab_size", model.n_vocab);
  builder->Float(key("attention.layer_norm_rms_epsilon"), 1e-5f)
      .Float(key("rope.freq_base"), 10000);
  if (model.activation != nullptr) builder->String(key("hidden_activation"), model.activation);
  if (model.powerinfer) builder->Magic("PWRI");
  if (model.predictor_rank > 0) builder->Float("powerinfer.sparse_threshold", 0);
}

void AddVocabulary(const TinyLlama& model, GgufBuilder* builder) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> kinds = {2, 3, 3};  // unknown, control, control
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    kinds.push_back(6);  // byte
  }
  while (static_cast<int64_t>(tokens.size()) < model.n_vocab) {
    const size_t i = tokens.size() - 259;
    std::string word = "\xe2\x96\x81";  // U+2581, the space of SentencePiece
    word += static_cast<char>('a' + i % 26);
    if (i >= 26) word += fmt::format("{}", i / 26);
    tokens.push_back(word);
    kinds.push_back(1);  // normal
  }
  const int64_t n_tokens = model.n_vocab - model.n_padding;
  tokens.resize(n_tokens);
  kinds.resize(n_tokens);
  std::vector<float> scores(n_tokens);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<float>(i);
  builder->String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", tokens)
      .Floats("tokenizer.ggml.scores", scores)
      .Ints("tokenizer.ggml.token_type", kinds)
      .Uint("tokenizer.ggml.bos_token_id", 1)
      .Uint("tokenizer.ggml.eos_token_id", 2)
      .Uint("tokenizer.ggml.unknown_token_id", 0)
      .Bool("tokenizer.ggml.add_bos_token", true);
}

// Adds tensors, each with a seed of its own.
class TensorWriter {
 public:
  TensorWriter(const TinyLlama& model, GgufBuilder* builder)
      : type_(model.type), seed_(model.seed * 1000), builder_(builder) {}

  // [rows, columns], of a size that keeps a product's output about as large as its input.
  void Matrix(const std::string& name, int64_t rows, int64_t columns) {
    const float amplitude = std::sqrt(3.0f / static_cast<float>(columns));
    builder_->Tensor(name, type_, {columns, rows},
                     RandomBlocks(type_, rows * columns, amplitude, ++seed_));
  }
  // 1 +- 0.1
  void Vector(const std::string& name, int64_t n) {
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) {
      values[i] = 1 + 0.02f * static_cast<float>((i * 7 + ++seed_) % 11) - 0.1f;
    }
    builder_->TensorF32(name, {n}, values);
  }

 private:
  const TensorType type_;
  uint32_t seed_;
  GgufBuilder* const builder_;
};

}  // namespace

GgufBuilder TinyLlama::Builder() const {
  GgufBuilder builder;
  AddKeys(*this, &builder);
  AddVocabulary(*this, &builder);
  TensorWriter tensors(*this, &builder);
  tensors.Matrix("token_embd.weight", n_vocab, d_model);
  tensors.Vector("output_norm.weight", d_model);
  if (!tied) tensors.Matrix("output.weight", n_vocab, d_model);
  if (rope_freqs) tensors.Vector("rope_freqs.weight", d_head / 2);
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    tensors.Vector(prefix + "attn_norm.weight", d_model);
    tensors.Matrix(prefix + "attn_q.weight", n_heads * d_head, d_model);
    tensors.Matrix(prefix + "attn_k.weight", n_kv_heads * d_head, d_model);
    tensors.Matrix(prefix + "attn_v.weight", n_kv_heads * d_head, d_model);
    tensors.Matrix(prefix + "attn_output.weight", d_model, n_heads * d_head);
    tensors.Vector(prefix + "ffn_norm.weight", d_model);
    tensors.Matrix(prefix + "ffn_gate.weight", d_ff, d_model);
    tensors.Matrix(prefix + "ffn_up.weight", d_ff, d_model);
    if (powerinfer) {
      tensors.Matrix(prefix + "ffn_down_t.weight", d_ff, d_model);
    } else {
      tensors.Matrix(prefix + "ffn_down.weight", d_model, d_ff);
    }
    if (predictor_rank > 0) {
      tensors.Matrix(prefix + "fc1.weight", predictor_rank, d_model);
      tensors.Matrix(prefix + "fc2.weight", d_ff, predictor_rank);
    }
  }
  return builder;
}

}  // namespace thermocline::testing
