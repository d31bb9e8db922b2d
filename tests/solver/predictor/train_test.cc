// Training on small synthetic layers: that it helps, is the same every time, and can be stopped.
#include "solver/predictor/train.h"

#include <gtest/gtest.h>

#include <limits>

#include "solver/predictor/calibrate.h"
#include "tests/solver/predictor/synthetic_layer.h"

namespace thermocline {
namespace {

using testing::MakeSyntheticLayer;
using testing::RandomMatrix;
using testing::SyntheticLayer;

constexpr int64_t kModel = 64, kFf = 288, kRank = 32;  // a part of 256 neurons and one of 32

const SyntheticLayer& Layer() {
  static const SyntheticLayer layer = MakeSyntheticLayer(32768, kModel, kFf, 1);
  return layer;
}

LowRank Start(const SyntheticLayer& layer, int64_t rank = kRank) {
  return ClosedForm(SplitSamples(layer.samples.view()).training, layer.gate.view(), rank, 1)
      .value();
}

TrainOptions Options() {
  TrainOptions options;
  options.batch = 256;
  options.n_epochs = 4;
  return options;
}

absl::StatusOr<TrainedLayer> Train(const TrainOptions& options,
                                   const TrainProgress& progress = {}) {
  return TrainLayer(Layer().samples.view(), Layer().gate.view(), Start(Layer()), options, progress);
}

TEST(TrainTest, LowersTheLossAndTheShareComputedAtEqualMass) {
  TrainOptions options = Options();
  options.n_epochs = 0;
  const absl::StatusOr<TrainedLayer> closed = Train(options);
  ASSERT_TRUE(closed.ok()) << closed.status();
  EXPECT_EQ(closed->loss, closed->first_loss);
  const absl::StatusOr<TrainedLayer> trained = Train(Options());
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_EQ(trained->first_loss, closed->loss);
  EXPECT_LT(trained->loss, 0.9 * closed->loss);
  EXPECT_LT(trained->selection.computed, 0.97 * closed->selection.computed);
}

TEST(TrainTest, IsTheSameBitsForASeedOnAnyNumberOfThreads) {
  TrainOptions options = Options();
  options.n_epochs = 1;
  const absl::StatusOr<TrainedLayer> one = Train(options);
  options.n_threads = 3;
  const absl::StatusOr<TrainedLayer> three = Train(options);
  ASSERT_TRUE(one.ok() && three.ok());
  EXPECT_EQ(one->fc1.bytes, three->fc1.bytes);
  EXPECT_EQ(one->fc2.bytes, three->fc2.bytes);
  EXPECT_EQ(one->bias, three->bias);
  EXPECT_EQ(one->selection, three->selection);
  options.seed = 2;
  EXPECT_NE(Train(options)->fc1.bytes, one->fc1.bytes);
}

TEST(TrainTest, SelectionIsWhatTheQuantizedWeightsDoOnHeldOutSamples) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kF16}) {
    TrainOptions options = Options();
    options.type = type;
    options.n_epochs = 1;
    const absl::StatusOr<TrainedLayer> layer = Train(options);
    ASSERT_TRUE(layer.ok()) << layer.status();
    EXPECT_EQ(layer->fc1.type, type);
    const MatrixView held_out = SplitSamples(Layer().samples.view()).held_out;
    const Matrix fc1 = layer->fc1.Dequantized(), fc2 = layer->fc2.Dequantized();
    const Matrix scores = Scores(held_out, fc1.view(), fc2.view(), layer->bias, 1);
    const Matrix gates = Product(held_out, Transposed(Layer().gate.view()).view(), 1);
    int64_t n_computed = 0;
    double mass = 0, kept = 0;
    for (size_t i = 0; i < scores.values.size(); ++i) {
      const bool computed = scores.values[i] > layer->selection.threshold;
      const float activation = std::max(gates.values[i], 0.0f);
      n_computed += computed;
      mass += activation;
      if (computed) kept += activation;
    }
    EXPECT_GE(kept / mass, options.mass);
    EXPECT_NEAR(kept / mass, layer->selection.mass, 1e-6);
    EXPECT_NEAR(static_cast<double>(n_computed) / std::ssize(scores.values),
                layer->selection.computed, 1e-6);
  }
}

TEST(TrainTest, NeverEndsWorseThanTheClosedForm) {
  // 40 samples are learned by heart in a few passes.
  const SyntheticLayer few = MakeSyntheticLayer(40, kModel, kFf, 3);
  TrainOptions options = Options();
  options.n_epochs = 100;
  const absl::StatusOr<TrainedLayer> layer =
      TrainLayer(few.samples.view(), few.gate.view(), Start(few), options, {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_LE(layer->loss, layer->first_loss);
}

TEST(TrainTest, CanBeStopped) {
  std::vector<double> shares;
  const absl::StatusOr<TrainedLayer> layer = Train(Options(), [&](double share) {
    shares.push_back(share);
    return shares.size() < 3;
  });
  EXPECT_EQ(layer.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(shares.size(), 3u);
}

TEST(TrainTest, ProgressRisesToOne) {
  double last = 0;
  ASSERT_TRUE(Train(Options(), [&](double share) {
                EXPECT_GT(share, last);
                last = share;
                return true;
              }).ok());
  EXPECT_DOUBLE_EQ(last, 1);
}

TEST(TrainTest, LayerThatNeverFiresComputesNothing) {
  SyntheticLayer dead = MakeSyntheticLayer(512, kModel, kFf, 4);
  std::fill(dead.gate.values.begin(), dead.gate.values.end(), 0.0f);
  const absl::StatusOr<TrainedLayer> layer =
      TrainLayer(dead.samples.view(), dead.gate.view(), Start(dead), Options(), {});
  ASSERT_TRUE(layer.ok()) << layer.status();
  EXPECT_EQ(layer->selection.computed, 0);
  EXPECT_EQ(layer->selection.recall, 1);
  EXPECT_EQ(layer->selection.mass, 1);
}

TEST(TrainTest, BadInputIsNamed) {
  const auto code = [](const SyntheticLayer& layer, const LowRank& start) {
    return TrainLayer(layer.samples.view(), layer.gate.view(), start, Options(), {})
        .status()
        .code();
  };
  EXPECT_EQ(code(MakeSyntheticLayer(15, kModel, kFf, 1), Start(Layer())),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(MakeSyntheticLayer(100, kModel, kFf + 1, 1), Start(Layer())),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Layer(), Start(Layer(), 31)), absl::StatusCode::kInvalidArgument);  // no block
  SyntheticLayer bad = MakeSyntheticLayer(100, kModel, kFf, 1);
  bad.samples.values.back() = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code(bad, Start(Layer())), absl::StatusCode::kInvalidArgument);
}

TEST(CalibrateTest, KeepsTheMassAskedForAndNoMoreThanNeeded) {
  const Matrix scores = RandomMatrix(50, 100, 1), gates = RandomMatrix(50, 100, 2);
  for (const double recall : {0.5, 0.9, 0.99, 1.0}) {
    const Selection selection = Calibrate(scores.view(), gates.view(), recall);
    EXPECT_GE(selection.mass, recall - 1e-6);
    EXPECT_LT(selection.mass, recall + 0.001 + 1e-6);         // one of 2,500 firings
    EXPECT_NEAR(selection.computed, selection.recall, 0.05);  // the scores know nothing
  }
}

TEST(CalibrateTest, EqualScoresAreKeptTogether) {
  Matrix scores(1, 4), gates(1, 4);
  gates.values = {1, 1, -1, 1};
  scores.values = {2, 2, 2, 3};
  const Selection selection = Calibrate(scores.view(), gates.view(), 0.5);
  EXPECT_LT(selection.threshold, 2);
  EXPECT_EQ(selection.computed, 1);
}

}  // namespace
}  // namespace thermocline
