#include "solver/placement/choose_modes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

struct Model {
  ModelShape shape;
  std::vector<FiringTable> firing;
};

Model Relu(double predictor_share, const char* type = "q4_0") {
  Model model;
  model.shape = *DescribeShape({"7b", type, true, predictor_share});
  model.firing = FiringOfCurve(model.shape, {0.094, 0.26, 0.8});
  return model;
}

absl::StatusOr<std::vector<LayerMode>> Choose(const Model& model, const ModeKnowledge& knowledge,
                                              const ModeRequest& request = {}) {
  auto choices = ChooseModes(model.shape, model.firing, knowledge, request);
  if (!choices.ok()) return choices.status();
  return choices->front();
}

// A profile whose sketches are known to compute so much.
Profile WithSketches(const Model& model, float one, float two, float three, float recall) {
  Profile profile;
  profile.recall = recall;
  LayerProfile layer;
  layer.sketch[0].computed = one;
  layer.sketch[1].computed = two;
  layer.sketch[2].computed = three;
  profile.layers.assign(model.shape.config.n_layers, layer);
  return profile;
}

TEST(ChooseModes, WithoutAnythingIsExactForReluAndOffForSilu) {
  EXPECT_EQ((*Choose(Relu(0), {}))[0].mode, Sparsity::kExact);
  Model silu = Relu(0);
  silu.shape.config.activation = Activation::kSilu;
  EXPECT_EQ((*Choose(silu, {}))[0].mode, Sparsity::kOff);
}

TEST(ChooseModes, AGateAndUpWithReluAreAReluModel) {
  Model model = Relu(0.06);
  model.shape.config.activation = Activation::kReluRelu;  // bamboo
  const Profile profile = WithSketches(model, 0.28f, 0.15f, 0.11f, 0.98f);
  EXPECT_EQ((*Choose(model, {&profile}))[0].mode, Sparsity::kSketch);
  for (const Sparsity mode : {Sparsity::kExact, Sparsity::kPredict}) {
    ModeRequest request;
    request.mode = mode;
    const auto modes = Choose(model, {&profile}, request);
    ASSERT_TRUE(modes.ok()) << modes.status();
    EXPECT_EQ((*modes)[3].mode, mode);
  }
}

TEST(ChooseModes, MagnitudesMayBeAskedForInReluModels) {
  const Model model = Relu(0);
  Profile profile = WithSketches(model, 0.28f, 0.15f, 0.11f, 0.98f);
  for (LayerProfile& layer : profile.layers) layer.magnitude.computed = 0.05f;
  ModeRequest request;
  request.mode = Sparsity::kThreshold;
  const auto modes = Choose(model, {&profile}, request);
  ASSERT_TRUE(modes.ok()) << modes.status();
  EXPECT_EQ((*modes)[0].mode, Sparsity::kThreshold);
  EXPECT_NE((*Choose(model, {&profile}))[0].mode, Sparsity::kThreshold);  // never by itself
}

TEST(ChooseModes, TakesTheSketchWithTheFewestBytes) {
  const Model model = Relu(0);
  const Profile profile = WithSketches(model, 0.28f, 0.15f, 0.11f, 0.98f);
  const LayerMode mode = (*Choose(model, {&profile}))[5];
  EXPECT_EQ(mode.mode, Sparsity::kSketch);
  EXPECT_EQ(mode.sketch_bits, 1);  // 4.5 bits: the sign sketch, as measured
  const Model f16 = Relu(0, "f16");
  const Profile f16_profile = WithSketches(f16, 0.28f, 0.15f, 0.11f, 0.98f);
  EXPECT_EQ((*Choose(f16, {&f16_profile}))[5].sketch_bits, 2);  // 16 bits: two, as measured
}

// The second choice, for GPUs: what all of a model's layers are computed in there.
std::optional<Sparsity> SecondMode(const Model& model, const ModeKnowledge& knowledge,
                                   const ModeRequest& request = {}) {
  const auto choices = ChooseModes(model.shape, model.firing, knowledge, request);
  EXPECT_TRUE(choices.ok()) << choices.status();
  EXPECT_LE(choices->size(), 2u);
  if (choices->size() < 2) return std::nullopt;
  for (const LayerMode& layer : (*choices)[1]) EXPECT_EQ(layer.mode, (*choices)[1][0].mode);
  return (*choices)[1][0].mode;
}

TEST(ChooseModes, AutoOffersAPredictorBesideASketchWhereItIsGoodEnough) {
  const Model model = Relu(0.06);
  const Profile profile = WithSketches(model, 0.28f, 0.15f, 0.11f, 0.98f);
  EXPECT_EQ((*Choose(model, {&profile}))[0].mode, Sparsity::kSketch);
  EXPECT_EQ(SecondMode(model, {&profile}), Sparsity::kPredict);
  EXPECT_EQ(SecondMode(Relu(0), {&profile}), std::nullopt) << "there is no predictor";
  ModeRequest strict;
  strict.quality_pct = 0.05;  // a predictor costs 0.1 %
  EXPECT_EQ(SecondMode(model, {&profile}, strict), std::nullopt);
  ModeRequest asked;
  asked.mode = Sparsity::kSketch;
  EXPECT_EQ(SecondMode(model, {&profile}, asked), std::nullopt);
}

TEST(ChooseModes, KeepsToTheQualityThatIsAskedFor) {
  const Model model = Relu(0);
  const Profile coarse = WithSketches(model, 0.22f, 0.12f, 0.10f, 0.90f);  // misses 10 %
  ModeRequest request;
  request.quality_pct = 0.1;
  const LayerMode strict = (*Choose(model, {&coarse}, request))[0];
  EXPECT_TRUE(strict.mode == Sparsity::kExact || strict.sketch_bits == 3);
  request.quality_pct = 1;
  EXPECT_EQ((*Choose(model, {&coarse}, request))[0].sketch_bits, 1);
}

TEST(ChooseModes, AMeasuredDivergenceCountsRatherThanTheEstimate) {
  const Model model = Relu(0.06);
  Profile profile = WithSketches(model, 0.28f, 0.15f, 0.11f, 0.98f);
  profile.kl = {.sketch = {2e-3f, 0.9e-3f, 0.1e-3f}, .predict = 5e-3f};
  ModeRequest request;
  request.quality_pct = 0.1;
  EXPECT_EQ((*Choose(model, {&profile}, request))[0].sketch_bits, 2);
  request.quality_pct = 0.05;
  EXPECT_EQ((*Choose(model, {&profile}, request))[0].sketch_bits, 3);
  request.quality_pct = 0.005;
  EXPECT_EQ((*Choose(model, {&profile}, request))[0].mode, Sparsity::kExact);
  profile.kl.predict = 0;
  EXPECT_EQ((*Choose(model, {&profile}, request))[0].mode, Sparsity::kPredict);
}

TEST(ChooseModes, WhatIsAskedForButCannotBeSaysWhatItNeeds) {
  const Model model = Relu(0);
  const auto error = [&](Sparsity mode) {
    ModeRequest request;
    request.mode = mode;
    const absl::Status status = Choose(model, {}, request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  EXPECT_THAT(error(Sparsity::kPredict), HasSubstr("predictor"));
  EXPECT_THAT(error(Sparsity::kSketch), HasSubstr("profile"));
  EXPECT_THAT(error(Sparsity::kThreshold), HasSubstr("profile"));
}

// Bytes that the FFN reads, of its dense ones, at 9.4 % firing: as masks of the 110M model gave
// them.
TEST(TouchedBytes, AreTheSharesThatWereMeasured) {
  const std::tuple<const char*, LayerMode, double> cases[] = {
      {"q4_0", {Sparsity::kExact, 0, 0.094}, 0.39},  {"q4_0", {Sparsity::kSketch, 1, 0.282}, 0.21},
      {"q4_0", {Sparsity::kSketch, 2, 0.153}, 0.27}, {"q8_0", {Sparsity::kSketch, 1, 0.282}, 0.18},
      {"q8_0", {Sparsity::kSketch, 2, 0.153}, 0.20}, {"f16", {Sparsity::kSketch, 1, 0.282}, 0.17},
      {"f16", {Sparsity::kSketch, 2, 0.153}, 0.16},  {"f16", {Sparsity::kOff, 0, 1}, 1.00},
  };
  for (const auto& [type, mode, share] : cases) {
    Model model = Relu(0, type);
    model.firing = FiringOfCurve(model.shape, {0.094, 1, 1});
    const LayerShape& layer = model.shape.layers[0];
    double bytes = 0;
    for (const double b : TouchedBytes(layer, model.shape.weight_bits, model.firing[0], mode)) {
      bytes += b;
    }
    const double dense = layer.neuron_bytes() * static_cast<double>(model.shape.config.d_ff);
    EXPECT_NEAR(bytes / dense, share, 0.007)
        << type << " " << SparsityName(mode.mode) << " " << mode.sketch_bits;
  }
}

TEST(TouchedBytes, OfAMixtureCountTheExpertsThatAreUsed) {
  const ModelShape shape = *DescribeShape({"mixtral-8x7b", "q4_0"});
  const std::vector<FiringTable> firing = FiringOfCurve(shape, {1, 1, 1});
  EXPECT_EQ(shape.config.d_ff, 8 * 14336);
  const std::vector<double> touched =
      TouchedBytes(shape.layers[0], shape.weight_bits, firing[0], {Sparsity::kOff, 0, 1});
  EXPECT_DOUBLE_EQ(touched[0], shape.layers[0].neuron_bytes() * 2 / 8);
}

}  // namespace
}  // namespace thermocline
