// Which predictors are accepted, and that what is wrong with one is one error.
#include "common/model/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using testing::GgufBuilder;
using ::testing::HasSubstr;

constexpr char kHash[] = "model-hash";

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 2;
  config.d_model = 64;
  config.d_ff = 96;
  return config;
}

GgufBuilder& AddMatrix(const std::string& name, TensorType type, int64_t rows, int64_t columns,
                       GgufBuilder* builder) {
  return builder->Tensor(name, type, {columns, rows},
                         testing::RandomBlocks(type, rows * columns, 1, 1));
}

// Rank 32 in layer 0, 64 in layer 1, which has a bias.
GgufBuilder Whole(TensorType type = TensorType::kQ8_0) {
  GgufBuilder builder;
  builder.String("general.architecture", "thermocline-predictor")
      .String("thermocline.model_hash", kHash)
      .Floats("thermocline.predictor.thresholds", {0.5f, -1})
      .Bool("thermocline.predictor.reads_residual", false)
      .Bool("thermocline.predictor.has_relu", false);
  AddMatrix("blk.0.fc1.weight", type, 32, 64, &builder);
  AddMatrix("blk.0.fc2.weight", type, 96, 32, &builder);
  AddMatrix("blk.1.fc1.weight", type, 64, 64, &builder);
  AddMatrix("blk.1.fc2.weight", type, 96, 64, &builder);
  return builder.TensorF32("blk.1.fc2.bias", {96}, std::vector<float>(96));
}

GgufBuilder PowerInfer() {
  GgufBuilder builder = Whole();
  for (const char* key : {"thresholds", "reads_residual", "has_relu"}) {
    builder.RemoveKey(std::string("thermocline.predictor.") + key);
  }
  return builder.Magic("PWRI")
      .String("general.architecture", "llama")
      .RemoveTensor("blk.1.fc2.bias")
      .Float("powerinfer.sparse_threshold", 0.25f);
}

absl::Status Read(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const auto file = GgufFile::Parse(bytes, "p.gguf");
  if (!file.ok()) return file.status();
  return ReadPredictor(**file, Config(), kHash).status();
}

void ExpectInvalid(const GgufBuilder& builder, const std::string& text) {
  const absl::Status status = Read(builder);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("p.gguf: "), HasSubstr(text), HasSubstr("with solve")));
}

TEST(Predictor, IsRead) {
  const Bytes bytes = Whole().Build();
  const auto file = GgufFile::Parse(bytes, "p.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto predictor = ReadPredictor(**file, Config(), kHash);
  ASSERT_TRUE(predictor.ok()) << predictor.status();
  EXPECT_FALSE(predictor->reads_residual);
  EXPECT_FALSE(predictor->has_relu);
  ASSERT_EQ(predictor->layers.size(), 2u);
  EXPECT_EQ(predictor->layers[0].rank, 32);
  EXPECT_EQ(predictor->layers[0].threshold, 0.5f);
  EXPECT_EQ(predictor->layers[0].bias, nullptr);
  EXPECT_EQ(predictor->layers[1].rank, 64);
  EXPECT_EQ(predictor->layers[1].threshold, -1);
  EXPECT_EQ(predictor->layers[1].fc1, (*file)->FindTensor("blk.1.fc1.weight"));
  EXPECT_EQ(predictor->layers[1].fc2, (*file)->FindTensor("blk.1.fc2.weight"));
  EXPECT_EQ(predictor->layers[1].bias, (*file)->FindTensor("blk.1.fc2.bias"));
}

TEST(Predictor, OfAPowerInferModelReadsTheResidual) {
  for (const float threshold : {0.25f, 0.0f}) {
    GgufBuilder builder = PowerInfer();
    if (threshold == 0) builder.RemoveKey("powerinfer.sparse_threshold");
    const Bytes bytes = builder.Build();
    const auto file = GgufFile::Parse(bytes, "m.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    const auto predictor = PredictorOfModel(**file, Config());
    ASSERT_TRUE(predictor.ok()) << predictor.status();
    EXPECT_TRUE(predictor->reads_residual);
    EXPECT_TRUE(predictor->has_relu);
    ASSERT_EQ(predictor->layers.size(), 2u);
    EXPECT_EQ(predictor->layers[1].rank, 64);
    EXPECT_EQ(predictor->layers[0].threshold, threshold);
    EXPECT_EQ(predictor->layers[1].threshold, threshold);
  }
}

TEST(Predictor, AModelWithoutOneIsNotFoundWithHalfOfOneInvalid) {
  const auto status = [](const GgufBuilder& builder) {
    const Bytes bytes = builder.Build();
    return PredictorOfModel(**GgufFile::Parse(bytes, "m.gguf"), Config()).status();
  };
  EXPECT_EQ(status(GgufBuilder()).code(), absl::StatusCode::kNotFound);
  const absl::Status half = status(PowerInfer().RemoveTensor("blk.1.fc2.weight"));
  EXPECT_EQ(half.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(half.message()),
              HasSubstr("m.gguf: tensor 'blk.1.fc2.weight' is missing"));
}

TEST(Predictor, OfAnotherModelNamesBothHashes) {
  const absl::Status status = Read(Whole().String("thermocline.model_hash", "another"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("p.gguf"), HasSubstr("'another'"), HasSubstr(kHash)));
}

TEST(Predictor, WhatIsMissingIsNamed) {
  for (const char* key :
       {"model_hash", "predictor.thresholds", "predictor.reads_residual", "predictor.has_relu"}) {
    const std::string name = std::string("thermocline.") + key;
    ExpectInvalid(Whole().RemoveKey(name), "'" + name + "' is missing");
  }
  for (const char* name : {"blk.0.fc1.weight", "blk.1.fc2.weight"}) {
    ExpectInvalid(Whole().RemoveTensor(name), std::string("tensor '") + name + "' is missing");
  }
}

TEST(Predictor, ShapesTypesAndCountsMustFit) {
  const auto put = [](const char* name, TensorType type, int64_t rows, int64_t columns) {
    GgufBuilder builder = Whole();
    return AddMatrix(name, type, rows, columns, &builder);
  };
  const TensorType type = TensorType::kQ8_0;
  ExpectInvalid(put("blk.0.fc1.weight", type, 32, 96), "'blk.0.fc1.weight' has 32 rows of 96, not");
  ExpectInvalid(put("blk.0.fc2.weight", type, 64, 32), "has 64 rows of 32, not 96 of 32");
  ExpectInvalid(put("blk.0.fc2.weight", type, 96, 64), "has 96 rows of 64, not 96 of 32");
  ExpectInvalid(put("blk.1.fc2.bias", TensorType::kF16, 1, 96), "'blk.1.fc2.bias' has type F16");
  ExpectInvalid(put("blk.1.fc2.bias", TensorType::kF32, 1, 95),
                "'blk.1.fc2.bias' has 1 rows of 95");
  ExpectInvalid(put("blk.2.fc1.weight", type, 32, 64), "holds 6 tensors, 5 of which");
  ExpectInvalid(Whole().Tensor("blk.0.fc1.weight", TensorType{6}, {64, 32}, Bytes(64 * 22)),
                "'blk.0.fc1.weight' has type Q5_0");
  ExpectInvalid(Whole().Floats("thermocline.predictor.thresholds", {0, 0, 0}), "3 values");
  ExpectInvalid(Whole().String("general.architecture", "llama"), "'llama'");
  ExpectInvalid(Whole().Uint("thermocline.predictor.has_relu", 1), "not a bool");
}

TEST(Predictor, NumbersThatAreNoneAreOneError) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  ExpectInvalid(Whole().Floats("thermocline.predictor.thresholds", {0, nan}),
                "'thermocline.predictor.thresholds' is not a finite f32 number at element 1");
  std::vector<float> bias(96);
  bias[95] = -infinity;
  ExpectInvalid(Whole().TensorF32("blk.1.fc2.bias", {96}, bias),
                "'blk.1.fc2.bias' holds a weight that is not a finite number at row 0, column 95");
  std::vector<float> weights(96 * 64);
  weights[3 * 64 + 7] = nan;
  ExpectInvalid(Whole(TensorType::kF32).TensorF32("blk.1.fc2.weight", {64, 96}, weights),
                "'blk.1.fc2.weight' holds a weight that is not a finite number at row 3, column 7");
  Bytes blocks = testing::RandomBlocks(TensorType::kQ8_0, 32 * 64, 1, 1);
  blocks[5 * 34 + 1] = 0x7e;  // the f16 scale of row 2's second block
  ExpectInvalid(Whole().Tensor("blk.0.fc1.weight", TensorType::kQ8_0, {64, 32}, blocks),
                "'blk.0.fc1.weight' holds the scale of a block that is not a finite number at row "
                "2, column 32");
}

TEST(Predictor, ATruncatedFileIsRefused) {
  Bytes bytes = Whole().Build();
  bytes.pop_back();
  const auto file = GgufFile::Parse(bytes, "p.gguf");
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("p.gguf"));
}

}  // namespace
}  // namespace thermocline
