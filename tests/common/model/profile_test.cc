// A profile is read back as it was written, and what is wrong with a file is one error.
#include "common/model/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

using ::testing::AllOf;
using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;

constexpr TensorType kI32Type{26};

class ProfileTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  absl::Status ReadStatus(const GgufBuilder& builder) {
    builder.WriteTo(path_);
    return ReadProfile(path_).status();
  }
  void ExpectInvalid(const GgufBuilder& builder, const std::string& text) {
    const absl::Status status = ReadStatus(builder);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(path_), HasSubstr(text), HasSubstr("with solve")));
  }

  const std::string path_ = ::testing::TempDir() + "/profile_" + std::to_string(getpid()) + ".gguf";
};

Profile Some() {
  Profile profile = {
      .model_hash = "model", .text_hash = "text", .n_tokens = 1000, .recall = 0.98f, .layers = {}};
  for (uint32_t layer = 0; layer < 3; ++layer) {
    LayerProfile& p = profile.layers.emplace_back();
    for (uint32_t i = 0; i < 5; ++i) p.fired.push_back(200 * i + layer);
    for (int bits = 0; bits < kMaxSketchBits; ++bits) {
      const float f = 0.01f * static_cast<float>(layer * 10 + bits);
      p.sketch[bits] = {.threshold = -10 * f, .computed = f, .recall = 1 - f, .mass = 1};
    }
    p.magnitude = {.threshold = 0.25f, .computed = 0.5f, .recall = 0, .mass = 0.75f};
  }
  profile.kl = {.sketch = {0.5e-3f, -1, 0}, .predict = 1e-3f, .threshold = -1};
  return profile;
}

// A whole file of 2 layers of 4 neurons, to be spoilt.
GgufBuilder Whole() {
  GgufBuilder builder;
  builder.String("general.architecture", "thermocline-profile")
      .String("thermocline.model_hash", "m")
      .String("thermocline.text_hash", "t")
      .Uint("thermocline.n_tokens", 9)
      .Float("thermocline.recall", 0.5f);
  for (const char* kind : {"sketch_1", "sketch_2", "sketch_3", "magnitude"}) {
    for (const char* field : {"threshold", "computed", "recall", "mass"}) {
      builder.Floats(std::string("thermocline.") + kind + "." + field, {0.5f, 0.25f});
    }
  }
  const Bytes counts = {0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0};
  return builder.Tensor("blk.0.fired", kI32Type, {4}, counts)
      .Tensor("blk.1.fired", kI32Type, {4}, counts);
}

TEST_F(ProfileTest, IsReadBackAsWritten) {
  const absl::Status written = WriteProfile(Some(), path_);
  ASSERT_TRUE(written.ok()) << written;
  const auto read = ReadProfile(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, Some());
}

TEST_F(ProfileTest, AWholeFileIsRead) {
  Whole().WriteTo(path_);
  const auto read = ReadProfile(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->layers.at(1).fired, ElementsAre(0, 1, 9, 2));
  EXPECT_EQ(read->layers[1].sketch[2].mass, 0.25f);
  EXPECT_EQ(read->layers[0].magnitude.threshold, 0.5f);
}

TEST(Profile, HottestFirstKeepsTiesInFileOrder) {
  EXPECT_THAT(HottestFirst({.fired = {1, 5, 0, 5, 9, 1}, .sketch = {}, .magnitude = {}}),
              ElementsAre(4, 1, 3, 0, 5, 2));
}

TEST_F(ProfileTest, WhatIsMissingIsNamed) {
  for (const char* key : {"model_hash", "text_hash", "n_tokens", "recall", "sketch_2.mass",
                          "sketch_1.threshold", "magnitude.recall"}) {
    const std::string name = std::string("thermocline.") + key;
    ExpectInvalid(Whole().RemoveKey(name), "'" + name + "' is missing");
  }
  ExpectInvalid(Whole().RemoveTensor("blk.1.fired"), "tensor 'blk.1.fired' is missing");
}

TEST_F(ProfileTest, ValuesThatCannotBeAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectInvalid(Whole().Float("thermocline.recall", 1.5f), "'thermocline.recall' holds 1.5");
  ExpectInvalid(Whole().Float("thermocline.recall", nan), "'thermocline.recall'");
  ExpectInvalid(Whole().Uint("thermocline.n_tokens", 0), "'thermocline.n_tokens' is 0");
  ExpectInvalid(Whole().Uint("thermocline.n_tokens", 3000000000u), "'thermocline.n_tokens'");
  ExpectInvalid(Whole().Floats("thermocline.sketch_1.threshold", {0, nan}),
                "'thermocline.sketch_1.threshold' is not a finite f32 number at element 1");
  ExpectInvalid(Whole().Floats("thermocline.sketch_3.computed", {0, -0.5f}),
                "'thermocline.sketch_3.computed' holds -0.5");
  ExpectInvalid(Whole().Uint("thermocline.n_tokens", 8), "9 firings of neuron 2 in 8 tokens");
  const Bytes negative = {255, 255, 255, 255};
  ExpectInvalid(Whole().Tensor("blk.0.fired", kI32Type, {1}, negative), "-1 firings");
}

TEST_F(ProfileTest, ShapesThatDisagreeAreRefused) {
  ExpectInvalid(Whole().Float("thermocline.kl.predict", -0.5f), "no divergence");
  ExpectInvalid(Whole().Floats("thermocline.magnitude.mass", {0, 0, 0}),
                "'thermocline.magnitude.mass' holds 3 values, but there are 2 layers");
  ExpectInvalid(Whole().Floats("thermocline.sketch_1.threshold", {}), "holds 0 values");
  ExpectInvalid(Whole().Tensor("blk.2.fired", kI32Type, {1}, Bytes(4)), "holds 3 tensors");
  ExpectInvalid(Whole().Tensor("blk.1.fired", kI32Type, {2, 2}, Bytes(16)), "2 rows");
  ExpectInvalid(Whole().TensorF32("blk.1.fired", {4}, {0, 0, 0, 0}), "has type F32");
}

TEST_F(ProfileTest, OtherFilesAreRefused) {
  ExpectInvalid(Whole().String("general.architecture", "llama"), "'llama'");
  const Bytes whole = Whole().Build();
  for (const size_t n : {whole.size() - 1, whole.size() / 2, size_t{3}}) {
    std::filesystem::remove(path_);
    Whole().WriteTo(path_);
    std::filesystem::resize_file(path_, n);
    const absl::Status status = ReadProfile(path_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  }
  EXPECT_EQ(ReadProfile(path_ + ".none").status().code(), absl::StatusCode::kNotFound);
}

TEST(Profile, BelongsToOneModel) {
  const auto check = [](const char* hash, int64_t n_layers, int64_t d_ff) {
    return CheckProfile(Some(), "p.gguf", hash, n_layers, d_ff);
  };
  EXPECT_TRUE(check("model", 3, 5).ok());
  const auto expect = [](const absl::Status& status, const char* text) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("p.gguf"), HasSubstr(text)));
  };
  expect(check("other", 3, 5), "is the profile of model 'model', not of 'other'");
  expect(check("model", 4, 5), "has 3 layers, the model has 4");
  expect(check("model", 3, 6), "has 5 neurons in layer 0, the model has 6");
}

}  // namespace
}  // namespace thermocline
