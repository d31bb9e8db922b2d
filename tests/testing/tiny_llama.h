// A whole model of the llama architecture, small and random, as a GGUF in memory. It writes noise;
// every shape and type can be chosen. Its vocabulary is <unk>, <s>, </s>, the 256 bytes, then
// words.
#pragma once

#include "tests/testing/gguf_builder.h"

namespace thermocline::testing {

struct TinyLlama {
  int64_t n_layers = 2;
  int64_t d_model = 64;
  int64_t d_ff = 96;
  int64_t n_heads = 4;
  int64_t n_kv_heads = 2;
  int64_t d_head = 32;  // written as attention.key_length, since n_heads * d_head may differ
  int64_t n_vocab = 320;
  int64_t n_padding = 0;  // the last rows of the vocabulary, that are no tokens
  int64_t n_ctx = 128;
  TensorType type = TensorType::kQ8_0;  // of matrices; vectors are F32
  bool tied = false;                    // no output.weight
  bool rope_freqs = false;
  const char* architecture = "llama";  // or "bamboo"
  const char* activation = "relu";     // null: no key
  // As PowerInfer writes it: PWRI, ffn_down_t; with fc1 and fc2 where the rank is above 0.
  bool powerinfer = false;
  int64_t predictor_rank = 0;
  uint32_t seed = 1;

  GgufBuilder Builder() const;
};

}  // namespace thermocline::testing
