// Thresholds keep what they promise on the samples they were set on, are the largest that do, and
// are measured by the worker's own kernels.
#include "solver/profile/thresholds.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "common/gguf/dequantize.h"
#include "common/model/tensor_table.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

class ThresholdsTest : public ::testing::TestWithParam<TensorType> {
 protected:
  void SetUp() override {
    const bool is_k_type = type_info(GetParam())->block_size == 256;
    TinyLlama model = {.type = GetParam()};
    if (is_k_type) model.d_model = 256, model.d_ff = 512, model.d_head = 64;
    bytes_ = model.Builder().Build();
    auto file = GgufFile::Parse(bytes_, "tiny");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    tensor_ = FindRole(*file_, Role::kFfnGate, 0);
    samples_ = Matrix(600, model.d_model);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& value : samples_.values) value = normal(random) - 0.1f;
    layer_.fired.resize(model.d_ff);
  }
  GateScores Scores() const {
    return GateScores(*file_, *tensor_, /*has_sketches=*/true, ops_, /*n_threads=*/2);
  }
  // On the same samples that the thresholds were set on.
  LayerProfile Set(const ThresholdOptions& options) const {
    LayerProfile layer = layer_;
    SetThresholds(Scores(), samples_.view(), samples_.view(), options, &layer);
    return layer;
  }

  const kernels::Ops& ops_ = kernels::ops(kernels::detect_isa());
  Bytes bytes_;
  std::unique_ptr<GgufFile> file_;
  const GgufTensor* tensor_ = nullptr;
  Matrix samples_;
  LayerProfile layer_;
};

TEST_P(ThresholdsTest, SketchesReachTheRecallAndNotMuchMore) {
  for (const double recall : {0.5, 0.9, 0.98, 1.0}) {
    const LayerProfile layer = Set({.recall = recall, .n_threads = 2});
    for (int bits = 1; bits <= kMaxSketchBits; ++bits) {
      const Selection& sketch = layer.sketch[bits - 1];
      const double wanted = bits == 3 ? (1 + recall) / 2 : recall;
      EXPECT_GE(sketch.recall, wanted - 1e-6);
      EXPECT_LE(sketch.recall, wanted + 0.001);  // of some ten thousand firings
      EXPECT_GE(sketch.mass, sketch.recall - 0.01);
    }
    // More bits see better: fewer neurons for the same recall (3 bits have another one).
    EXPECT_LT(layer.sketch[1].computed, layer.sketch[0].computed);
  }
}

TEST_P(ThresholdsTest, WhatIsMeasuredIsWhatTheThresholdDoes) {
  const LayerProfile layer = Set({.recall = 0.95, .n_threads = 3});
  const GateScores scores = Scores();
  std::vector<float> gates(600 * scores.stride()), sketch(gates.size());
  const GateScores::Inputs inputs = scores.Prepare(samples_.view());
  scores.Gates(inputs, gates.data());
  for (int bits = 1; bits <= kMaxSketchBits; ++bits) {
    scores.Sketch(bits, inputs, sketch.data());
    double n = 0, computed = 0, fired = 0, kept = 0, mass = 0, mass_kept = 0;
    for (int64_t t = 0; t < 600; ++t) {
      for (int64_t i = 0; i < scores.d_ff(); ++i) {
        const float gate = gates[t * scores.stride() + i];
        const bool passes = sketch[t * scores.stride() + i] > layer.sketch[bits - 1].threshold;
        n += 1;
        computed += passes;
        if (gate <= 0) continue;
        fired += 1;
        kept += passes;
        mass += gate;
        if (passes) mass_kept += gate;
      }
    }
    EXPECT_FLOAT_EQ(layer.sketch[bits - 1].computed, static_cast<float>(computed / n));
    EXPECT_FLOAT_EQ(layer.sketch[bits - 1].recall, static_cast<float>(kept / fired));
    EXPECT_FLOAT_EQ(layer.sketch[bits - 1].mass, static_cast<float>(mass_kept / mass));
  }
}

TEST_P(ThresholdsTest, GatesAreTheProductWithTheFilesWeights) {
  const GateScores scores = Scores();
  const Matrix values = scores.Values(2);
  std::vector<float> expected(values.values.size());
  dequantize(tensor_->type, file_->TensorBytes(*tensor_).data(), std::ssize(expected),
             expected.data());
  EXPECT_EQ(values.values, expected);
  std::vector<float> gates(8 * scores.stride());
  scores.Gates(scores.Prepare(samples_.view().rows(0, 8)), gates.data());
  for (int64_t t = 0; t < 8; ++t) {
    for (int64_t i = 0; i < scores.d_ff(); ++i) {
      double sum = 0;
      for (int64_t k = 0; k < values.n_cols; ++k) sum += values.row(i)[k] * samples_.row(t)[k];
      // Inputs in int8: half a step of 3 / 127 on each of n_cols, weights about 1 / sqrt(n_cols).
      EXPECT_NEAR(gates[t * scores.stride() + i], sum, 0.1) << t << ", " << i;
    }
  }
}

TEST_P(ThresholdsTest, TheNumberOfThreadsChangesNothing) {
  EXPECT_EQ(Set({.n_threads = 1}), Set({.n_threads = 3}));
}

TEST_P(ThresholdsTest, MagnitudeSkipsTheShareAskedFor) {
  const LayerProfile layer =
      Set({.activation = Activation::kSilu, .skip_share = 0.4, .n_threads = 2});
  EXPECT_NEAR(layer.magnitude.computed, 0.6, 0.001);
  EXPECT_GT(layer.magnitude.mass, 0.8);  // the smallest are skipped
  EXPECT_EQ(layer.sketch[0], Selection());
  const std::vector<uint32_t> counts =
      CountAboveMagnitude(Scores(), samples_.view(), layer, /*n_threads=*/2);
  double sum = 0;
  for (const uint32_t n : counts) sum += n;
  EXPECT_NEAR(sum / static_cast<double>(600 * counts.size()), 0.6, 0.001);
}

TEST_P(ThresholdsTest, OfAReluModelMagnitudeSkipsAShareOfTheFirings) {
  const LayerProfile layer = Set({.skip_share = 0.4, .n_threads = 2});
  EXPECT_GT(layer.magnitude.threshold, 0);
  EXPECT_NEAR(layer.magnitude.recall, 0.6, 0.001);
  EXPECT_GT(layer.magnitude.mass, 0.8);
  EXPECT_LT(layer.magnitude.computed, 0.6 * 0.6);  // about half of the neurons fire
}

INSTANTIATE_TEST_SUITE_P(Types, ThresholdsTest,
                         ::testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kBF16,
                                           TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_K,
                                           TensorType::kQ6_K),
                         [](const auto& info) { return type_info(info.param)->name; });

}  // namespace
}  // namespace thermocline::testing
