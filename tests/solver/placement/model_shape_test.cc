// Shapes described and of files, and the firing tables that go with them.
#include "solver/placement/model_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "solver/placement/firing.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using testing::Bytes;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TinyLlama;

constexpr double kGib = 1024.0 * 1024 * 1024;

absl::StatusOr<ModelShape> ShapeOf(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const auto file = GgufFile::Parse(bytes, "test.gguf");
  return file.ok() ? ShapeOfGguf(**file) : absl::StatusOr<ModelShape>(file.status());
}

TEST(ShapeOfGguf, CountsEveryByteThatRanksHold) {
  const Bytes bytes = TinyLlama().Builder().Build();
  const auto file = GgufFile::Parse(bytes, "test.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::StatusOr<ModelShape> shape = ShapeOfGguf(**file);
  ASSERT_TRUE(shape.ok()) << shape.status();
  double held = 0;  // all but the embedding and the last norm
  for (const GgufTensor& tensor : (*file)->tensors()) {
    if (tensor.name != "token_embd.weight" && tensor.name != "output_norm.weight") {
      held += static_cast<double>(tensor.n_bytes);
    }
  }
  EXPECT_DOUBLE_EQ(shape->total_bytes(), held);
  EXPECT_EQ(shape->config.d_ff, 96);
  EXPECT_EQ(shape->config.n_kv_heads, 2);
  EXPECT_EQ(shape->config.activation, Activation::kRelu);
  EXPECT_DOUBLE_EQ(shape->weight_bits, 8.5);
  EXPECT_DOUBLE_EQ(shape->kv_token_bytes(), 2 * 2 * 2 * 32);
  EXPECT_DOUBLE_EQ(shape->gpu_kv_token_bytes(), 2 * 2 * 2 * 32);
}

TEST(ShapeOfGguf, NamesWhatIsMissing) {
  GgufBuilder builder = TinyLlama().Builder();
  builder.RemoveTensor("blk.1.ffn_up.weight");
  EXPECT_THAT(std::string(ShapeOf(builder).status().message()), HasSubstr("layer 1 has no ffn_up"));
  builder = TinyLlama().Builder();
  builder.RemoveKey("llama.feed_forward_length");
  EXPECT_THAT(std::string(ShapeOf(builder).status().message()), HasSubstr("feed_forward_length"));
  builder = TinyLlama().Builder();
  builder.Uint("llama.block_count", 3);
  EXPECT_THAT(std::string(ShapeOf(builder).status().message()), HasSubstr("layer 2"));
  builder = TinyLlama().Builder();
  builder.Uint("llama.block_count", 4000000000u);
  EXPECT_THAT(std::string(ShapeOf(builder).status().message()), HasSubstr("block_count"));
}

TEST(ShapeOfGguf, CountsTheNeuronsOfAllExperts) {
  GgufBuilder builder = TinyLlama().Builder();
  builder.Uint("llama.expert_count", 4).Uint("llama.expert_used_count", 2);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const std::string role : {"ffn_gate", "ffn_up", "ffn_down"}) {
      builder.RemoveTensor(layer + role + ".weight");
      builder.Tensor(layer + role + "_exps.weight", TensorType::kF16, {64, 96, 4},
                     Bytes(64 * 96 * 4 * 2));
    }
    builder.Tensor(layer + "ffn_gate_inp.weight", TensorType::kF32, {64, 4}, Bytes(64 * 4 * 4));
  }
  const absl::StatusOr<ModelShape> shape = ShapeOf(builder);
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->n_experts, 4);
  EXPECT_EQ(shape->n_experts_used, 2);
  EXPECT_EQ(shape->config.d_ff, 4 * 96);
  EXPECT_DOUBLE_EQ(shape->layers[0].neuron_bytes(), 3 * 64 * 2);
  builder.Uint("llama.expert_used_count", 5);
  EXPECT_THAT(std::string(ShapeOf(builder).status().message()), HasSubstr("expert_used_count"));
}

TEST(AddPredictor, TakesPowerInfersTensors) {
  GgufBuilder builder = TinyLlama().Builder();
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    builder.Tensor(layer + "fc1.weight", TensorType::kF16, {64, 32}, Bytes(64 * 32 * 2));
    builder.Tensor(layer + "fc2.weight", TensorType::kF16, {32, 96}, Bytes(32 * 96 * 2));
  }
  const absl::StatusOr<ModelShape> shape = ShapeOf(builder);
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_DOUBLE_EQ(shape->layers[1].fc1_bytes, 64 * 32 * 2);
  EXPECT_DOUBLE_EQ(shape->layers[1].fc2_neuron_bytes, 32 * 2);
}

// Sizes of well-known files, without their embeddings.
TEST(DescribeShape, HasTheSizesOfKnownModels) {
  const std::tuple<const char*, const char*, double> cases[] = {{"7b", "q4_0", 3.45},
                                                                {"7b", "q4_k_m", 3.71},
                                                                {"7b", "f16", 12.3},
                                                                {"70b", "q4_k_m", 38.4},
                                                                {"opt-30b", "f16", 55.2}};
  for (const auto& [name, type, gib] : cases) {
    const absl::StatusOr<ModelShape> shape = DescribeShape({name, type});
    ASSERT_TRUE(shape.ok()) << shape.status();
    EXPECT_NEAR(shape->total_bytes() / kGib, gib, 0.03 * gib) << name << " " << type;
  }
}

TEST(DescribeShape, SpendsThePredictorsShare) {
  const absl::StatusOr<ModelShape> shape = DescribeShape({"70b", "q4_k_m", true, 0.06});
  ASSERT_TRUE(shape.ok());
  const LayerShape& layer = shape->layers[0];
  const double d_ff = static_cast<double>(shape->config.d_ff);
  EXPECT_NEAR(layer.fc1_bytes + d_ff * layer.fc2_neuron_bytes,
              0.06 * (layer.attention_bytes + d_ff * layer.neuron_bytes()), 1);
}

TEST(DescribeShape, NamesTheKnownOnes) {
  EXPECT_THAT(std::string(DescribeShape({"71b", "f16"}).status().message()), HasSubstr("70b"));
  EXPECT_THAT(std::string(DescribeShape({"70b", "q3"}).status().message()), HasSubstr("q4_k_m"));
}

double Carried(const FiringTable& table, double share) {
  const auto n = static_cast<int64_t>(share * static_cast<double>(table.fires.size()));
  return std::accumulate(table.fires.begin(), table.fires.begin() + n, 0.0) / table.total();
}

TEST(FiringOfCurve, GoesThroughItsPointAndFiresItsShare) {
  const ModelShape shape = *DescribeShape({"7b", "q4_0", true});
  const FiringTable table = FiringOfCurve(shape, {0.115, 0.10, 0.47})[0];
  EXPECT_NEAR(table.mean(), 0.115, 1e-3);
  EXPECT_NEAR(Carried(table, 0.10), 0.47, 2e-3);
  EXPECT_NEAR(Carried(table, 0.29), 0.85, 0.01);  // a second measured point of the same model
  EXPECT_TRUE(std::is_sorted(table.fires.rbegin(), table.fires.rend()));
}

TEST(FiringOfProfile, SortsCountsAndGivesExpertsTheirShare) {
  ModelShape shape = *DescribeShape({"7b", "q4_0", true});
  shape.config.d_ff = 4;
  shape.n_experts = 2;
  shape.n_experts_used = 1;
  Profile profile;
  profile.n_tokens = 10;
  profile.layers.resize(1);
  profile.layers[0].fired = {1, 2, 8, 1};  // the second expert is used three times as often
  const FiringTable table = FiringOfProfile(profile, shape)[0];
  EXPECT_EQ(table.fires, (std::vector<double>{0.8, 0.2, 0.1, 0.1}));
  EXPECT_EQ(table.routed, (std::vector<double>{0.8, 0.25, 0.25, 0.8}));
}

}  // namespace
}  // namespace thermocline
