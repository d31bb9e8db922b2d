// What a model's configuration is for given keys. Files that are refused: tests/fuzz (config_*).
#include "common/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using testing::GgufBuilder;
using ::testing::HasSubstr;

absl::StatusOr<ModelConfig> Read(const GgufBuilder& builder) {
  const testing::Bytes bytes = builder.Build();
  auto file = GgufFile::Parse(bytes, "m.gguf");
  EXPECT_TRUE(file.ok()) << file.status();
  return ReadModelConfig(**file);
}

GgufBuilder Tiny() { return testing::TinyLlama().Builder(); }

TEST(ModelConfig, ReadsTheDimensions) {
  const auto config = Read(Tiny());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "tiny");
  EXPECT_EQ(config->n_layers, 2);
  EXPECT_EQ(config->d_model, 64);
  EXPECT_EQ(config->d_ff, 96);
  EXPECT_EQ(config->n_heads, 4);
  EXPECT_EQ(config->n_kv_heads, 2);
  EXPECT_EQ(config->d_head, 32);
  EXPECT_EQ(config->n_rot, 32);
  EXPECT_EQ(config->n_vocab, 320);
  EXPECT_EQ(config->n_ctx_train, 128);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->rope_freq_base, 10000);
  EXPECT_EQ(config->rope_freq_scale, 1);
  EXPECT_EQ(config->activation, Activation::kRelu);
}

TEST(ModelConfig, AbsentKeysHaveTheirDefaults) {
  GgufBuilder builder = Tiny();
  for (const char* key :
       {"attention.head_count_kv", "attention.key_length", "attention.value_length",
        "rope.dimension_count", "rope.freq_base", "vocab_size", "hidden_activation"}) {
    builder.RemoveKey(std::string("llama.") + key);
  }
  builder.RemoveKey("general.name");
  const auto config = Read(builder);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "");
  EXPECT_EQ(config->n_kv_heads, 4);
  EXPECT_EQ(config->d_head, 16);
  EXPECT_EQ(config->n_rot, 16);
  EXPECT_EQ(config->rope_freq_base, 10000);
  EXPECT_EQ(config->n_vocab, 320);
  EXPECT_EQ(config->activation, Activation::kSilu);
}

TEST(ModelConfig, VocabularyIsCountedWhereTheKeyIsAbsent) {
  GgufBuilder builder = Tiny().RemoveKey("llama.vocab_size");
  EXPECT_EQ(Read(GgufBuilder(builder).RemoveKey("tokenizer.ggml.tokens"))->n_vocab, 320);
  EXPECT_EQ(Read(GgufBuilder(builder).RemoveTensor("token_embd.weight"))->n_vocab, 320);
  builder.RemoveKey("tokenizer.ggml.tokens").RemoveTensor("token_embd.weight");
  EXPECT_THAT(std::string(Read(builder).status().message()), HasSubstr("tokenizer.ggml.tokens"));
}

TEST(ModelConfig, PowerInferFilesAreReluUnlessTheySayOtherwise) {
  GgufBuilder builder = Tiny().Magic("PWRI").RemoveKey("llama.hidden_activation");
  EXPECT_EQ(Read(builder)->activation, Activation::kRelu);
  EXPECT_EQ(Read(builder.String("llama.hidden_activation", "silu"))->activation, Activation::kSilu);
}

TEST(ModelConfig, TransposedDownMeansRelu) {
  GgufBuilder builder = Tiny().RemoveKey("llama.hidden_activation");
  builder.TensorF32("blk.0.ffn_down_t.weight", {1}, {0});
  EXPECT_EQ(Read(builder)->activation, Activation::kRelu);
  EXPECT_EQ(Read(builder.String("llama.hidden_activation", "silu"))->activation, Activation::kSilu);
}

TEST(ModelConfig, BambooIsReluOnGateAndUp) {
  testing::TinyLlama bamboo;
  bamboo.architecture = "bamboo";
  for (const char* activation : {static_cast<const char*>(nullptr), "relu", "relu_relu"}) {
    for (const bool powerinfer : {false, true}) {
      bamboo.activation = activation;
      bamboo.powerinfer = powerinfer;
      const auto config = Read(bamboo.Builder());
      ASSERT_TRUE(config.ok()) << config.status();
      EXPECT_EQ(config->architecture, "bamboo");
      EXPECT_EQ(config->activation, Activation::kReluRelu);
      EXPECT_EQ(config->d_ff, 96);
    }
  }
  EXPECT_EQ(Read(Tiny().String("llama.hidden_activation", "relu_relu"))->activation,
            Activation::kReluRelu);
}

TEST(ModelConfig, LinearRopeScalingDividesPositions) {
  const auto scale = [](const GgufBuilder& builder) { return Read(builder)->rope_freq_scale; };
  EXPECT_EQ(scale(Tiny().Float("llama.rope.scaling.factor", 4)), 0.25);
  EXPECT_EQ(scale(Tiny().Float("llama.rope.scale_linear", 2)), 0.5);
  GgufBuilder both = Tiny().Float("llama.rope.scaling.factor", 8);
  EXPECT_EQ(scale(both.String("llama.rope.scaling.type", "linear")), 0.125);
  EXPECT_EQ(scale(both.String("llama.rope.scaling.type", "none")), 1);
}

TEST(ModelConfig, WhatIsNotComputedIsUnimplementedAndNamed) {
  const auto expect = [](const GgufBuilder& builder, const char* text) {
    const absl::Status status = Read(builder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect(Tiny().String("general.architecture", "falcon"), "'falcon' is not computed here");
  expect(Tiny().String("llama.rope.scaling.type", "yarn"), "'llama.rope.scaling.type' is 'yarn'");
  expect(Tiny().String("llama.hidden_activation", "gelu"), "'llama.hidden_activation' is 'gelu'");
  expect(Tiny().Uint("llama.expert_count", 8), "'llama.expert_count' is 8");
  expect(Tiny().Ints("llama.attention.head_count_kv", {1, 2}), "'llama.attention.head_count_kv'");
  expect(Tiny().Ints("llama.feed_forward_length", {96, 96}), "'llama.feed_forward_length'");
  expect(Tiny().Uint("llama.attention.value_length", 16), "'llama.attention.value_length' is 16");
  expect(Tiny().Uint("split.count", 2), "one of 2 parts");
  GgufBuilder wide = Tiny().RemoveKey("llama.attention.key_length");
  wide.RemoveKey("llama.attention.value_length").RemoveKey("llama.rope.dimension_count");
  expect(wide.Uint("llama.embedding_length", 4096), "heads of 1024 values");
}

TEST(ModelConfig, KvHeadsAreCutInUnitsOf32Columns) {
  const auto unit = [](int64_t n_heads, int64_t n_kv_heads, int64_t d_head) {
    ModelConfig config;
    config.n_heads = n_heads;
    config.n_kv_heads = n_kv_heads;
    config.d_head = d_head;
    return config.kv_heads_per_unit();
  };
  EXPECT_EQ(unit(32, 32, 128), 1);
  EXPECT_EQ(unit(32, 32, 100), 8);
  EXPECT_EQ(unit(32, 8, 100), 2);
  EXPECT_EQ(unit(4, 4, 8), 4);
  EXPECT_EQ(unit(1, 1, 1), 32);
  for (int64_t group = 1; group <= 9; ++group) {
    for (int64_t d_head = 1; d_head <= 130; ++d_head) {
      int64_t smallest = 1;
      while (smallest * group * d_head % 32 != 0) ++smallest;
      ASSERT_EQ(unit(group, 1, d_head), smallest) << group << " " << d_head;
    }
  }
}

TEST(Activation, UnknownNamesAreAnErrorThatListsTheKnown) {
  EXPECT_EQ(*ParseActivation("relu"), Activation::kRelu);
  EXPECT_EQ(*ParseActivation("silu"), Activation::kSilu);
  EXPECT_EQ(*ParseActivation("relu_relu"), Activation::kReluRelu);
  EXPECT_TRUE(IsRelu(Activation::kRelu) && IsRelu(Activation::kReluRelu));
  EXPECT_FALSE(IsRelu(Activation::kSilu));
  EXPECT_EQ(ParseActivation("swish").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ParseActivation("swish").status().message()),
              HasSubstr("'swish', an unknown activation; known: relu, silu, relu_relu"));
}

}  // namespace
}  // namespace thermocline
