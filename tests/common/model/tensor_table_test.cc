// Which files the tensor table accepts. More files that are refused: tests/fuzz (model_*).
#include "common/model/tensor_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TinyLlama;

absl::Status Check(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const auto file = GgufFile::Parse(bytes, "m.gguf");
  if (!file.ok()) return file.status();
  const auto config = ReadModelConfig(**file);
  return config.ok() ? CheckTensors(**file, *config) : config.status();
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

GgufBuilder Tiny() { return TinyLlama().Builder(); }

TEST(TensorTable, AcceptsModelsOfEveryComputedType) {
  for (const TypeInfo& info : kTensorTypes) {
    TinyLlama model;
    model.d_model = model.d_ff = 256;
    model.n_heads = 8;
    model.type = info.type;
    EXPECT_TRUE(Check(model.Builder()).ok()) << info.name << ": " << Check(model.Builder());
  }
}

TEST(TensorTable, OutputAndRopeFreqsAreOptional) {
  TinyLlama model;
  model.tied = true;
  model.rope_freqs = true;
  const Bytes bytes = model.Builder().Build();
  const auto file = GgufFile::Parse(bytes, "m.gguf");
  ASSERT_TRUE(Check(model.Builder()).ok());
  EXPECT_EQ(FindRole(**file, Role::kOutput), nullptr);
  EXPECT_EQ(FindRole(**file, Role::kRopeFreqs)->dims[0], 16);
  EXPECT_EQ(FindRole(**file, Role::kFfnDown, 1)->name, "blk.1.ffn_down.weight");
  EXPECT_EQ(FindRole(**file, Role::kFfnDown, 2), nullptr);
}

TEST(TensorTable, OneErrorListsAllThatIsWrong) {
  const absl::Status status =
      Check(Tiny()
                .RemoveTensor("blk.1.attn_k.weight")
                .RemoveTensor("output_norm.weight")
                .TensorF32("blk.0.ffn_up.weight", {64}, std::vector<float>(64)));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status),
            "m.gguf: tensor 'output_norm.weight' is missing; tensor 'blk.1.attn_k.weight' is "
            "missing; tensor 'blk.0.ffn_up.weight' is [64], but [d_ff, d_model] is [96, 64]");
}

TEST(TensorTable, ALongListIsCut) {
  EXPECT_THAT(Message(Check(Tiny().Uint("llama.block_count", 12))), HasSubstr("; and 82 more"));
}

TEST(TensorTable, TransposedShapesAreRefused) {
  const absl::Status status = Check(
      Tiny().Tensor("blk.0.ffn_up.weight", TensorType::kQ8_0, {96, 64}, Bytes(96 * 64 / 32 * 34)));
  EXPECT_THAT(Message(status), HasSubstr("is [64, 96], but [d_ff, d_model] is [96, 64]"));
}

TEST(TensorTable, RowsOfTheWrongLengthAreRefused) {
  const absl::Status status =
      Check(Tiny().TensorF32("blk.0.ffn_up.weight", {32, 96}, std::vector<float>(32 * 96)));
  EXPECT_THAT(Message(status), HasSubstr("is [96, 32], but [d_ff, d_model] is [96, 64]"));
}

TEST(TensorTable, AThirdDimensionIsRefused) {
  const absl::Status status =
      Check(Tiny().TensorF32("blk.0.ffn_up.weight", {64, 96, 2}, std::vector<float>(2 * 64 * 96)));
  EXPECT_THAT(Message(status), HasSubstr("is [2, 96, 64], but [d_ff, d_model] is [96, 64]"));
}

TEST(TensorTable, TypesThatAreNotComputedAreNamed) {
  const absl::Status status = Check(
      Tiny().Tensor("blk.0.ffn_up.weight", TensorType{6}, {64, 96}, Bytes(64 * 96 / 32 * 22)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr("'blk.0.ffn_up.weight' has type Q5_0"),
                    HasSubstr("known: F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q5_K, Q6_K")));
}

TEST(TensorTable, VectorsMustBeF32) {
  const absl::Status status =
      Check(Tiny().Tensor("blk.0.attn_norm.weight", TensorType::kBF16, {64}, Bytes(128)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("'blk.0.attn_norm.weight' has type BF16, it must be F32"));
}

TEST(TensorTable, TensorsThatWouldChangeTheResultAreNotPassedOver) {
  for (const char* name : {"blk.0.attn_q.bias", "blk.1.ffn_gate_inp.weight", "output.bias",
                           "blk.2.attn_norm.weight"}) {
    const absl::Status status = Check(Tiny().TensorF32(name, {1}, {0}));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << name;
    EXPECT_THAT(Message(status), HasSubstr(name));
  }
  for (const char* name :
       {"blk.0.fc1.weight", "blk.0.fc2.weight", "blk.0.attn_rot_embd.weight", "extra"}) {
    EXPECT_TRUE(Check(Tiny().Tensor(name, TensorType{99}, {1}, Bytes(1))).ok()) << name;
  }
}

GgufBuilder PowerInfer(TensorType type) {
  TinyLlama model;
  model.d_model = model.d_ff = 256;
  model.n_heads = 8;
  model.type = type;
  model.powerinfer = true;
  model.predictor_rank = 256;
  return model.Builder();
}

TEST(TensorTable, PowerInfersTransposedDownStandsForDown) {
  for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16,
                                TensorType::kQ4_0, TensorType::kQ8_0}) {
    EXPECT_TRUE(Check(PowerInfer(type)).ok()) << Check(PowerInfer(type));
  }
  const Bytes bytes = PowerInfer(TensorType::kQ8_0).Build();
  const auto file = GgufFile::Parse(bytes, "m.gguf");
  EXPECT_EQ(FindRole(**file, Role::kFfnDownT, 1)->name, "blk.1.ffn_down_t.weight");
  EXPECT_EQ(FindRole(**file, Role::kFfnDown, 1), nullptr);
}

TEST(TensorTable, TransposedDownInSuperBlocksIsNamed) {
  const absl::Status status = Check(PowerInfer(TensorType::kQ4_K));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("'blk.0.ffn_down_t.weight' has type Q4_K"),
                                     HasSubstr("known: F32, F16, BF16, Q4_0, Q8_0")));
}

TEST(TensorTable, EachLayerHasOneDown) {
  const TensorType type = TensorType::kQ8_0;
  const Bytes blocks(64 * 96 / 32 * 34);
  EXPECT_THAT(Message(Check(Tiny().RemoveTensor("blk.1.ffn_down.weight"))),
              HasSubstr("'blk.1.ffn_down.weight' (or 'blk.1.ffn_down_t.weight') is missing"));
  EXPECT_THAT(Message(Check(Tiny().Tensor("blk.0.ffn_down_t.weight", type, {64, 96}, blocks))),
              HasSubstr("'blk.0.ffn_down.weight' and 'blk.0.ffn_down_t.weight' are both there"));
  EXPECT_THAT(Message(Check(Tiny()
                                .RemoveTensor("blk.0.ffn_down.weight")
                                .Tensor("blk.0.ffn_down_t.weight", type, {96, 64}, blocks))),
              HasSubstr("'blk.0.ffn_down_t.weight' is [64, 96], but [d_ff, d_model] is [96, 64]"));
}

TEST(TensorTable, AVocabularyAloneIsNoModel) {
  GgufBuilder builder = Tiny();
  const Bytes whole = builder.Build();
  const auto file = GgufFile::Parse(whole, "m.gguf");
  for (const GgufTensor& tensor : (*file)->tensors()) builder.RemoveTensor(tensor.name);
  EXPECT_THAT(Message(Check(builder)), HasSubstr("a vocabulary only"));
}

}  // namespace
}  // namespace thermocline
