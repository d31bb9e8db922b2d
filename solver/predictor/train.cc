#include "solver/predictor/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/util/status_macros.h"
#include "solver/predictor/calibrate.h"
#include "solver/predictor/descent.h"

namespace thermocline {
namespace {

constexpr int64_t kMinSamples = 16;
constexpr int64_t kMaxHeldOut = 8192;  // tokens: enough for a quantile, and 4 * d_ff bytes each
constexpr int64_t kMaxLossTokens = 1024;

// log(1 + exp(x)) without overflow.
double SoftPlus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

// The loss that the descent lowers, a neuron and token, over tokens spread over scores and gates
// [n_tokens, d_ff].
double Loss(const Matrix& scores, const Matrix& gates, double mean_activation) {
  const int64_t stride = (scores.n_rows + kMaxLossTokens - 1) / kMaxLossTokens;
  double sum = 0;
  int64_t n = 0;
  for (int64_t t = 0; t < scores.n_rows; t += stride, n += scores.n_cols) {
    for (int64_t i = 0; i < scores.n_cols; ++i) {
      const double gate = gates.row(t)[i], score = scores.row(t)[i];
      sum += gate > 0 ? kMissCost * gate / mean_activation * SoftPlus(-score) : SoftPlus(score);
    }
  }
  return sum / static_cast<double>(n);
}

// What is measured on the held-out samples.
class HeldOut {
 public:
  HeldOut(MatrixView samples, MatrixView gate, int n_threads)
      : samples_(samples),
        n_threads_(n_threads),
        gates_(Product(samples, Transposed(gate).view(), n_threads)) {}

  double LossOf(const PredictorWeights& weights, double mean_activation) const {
    return Loss(
        ScoresOf(Transposed(weights.fc1.view()), Transposed(weights.fc2.view()), weights.bias),
        gates_, mean_activation);
  }
  Selection SelectionOf(const TrainedLayer& layer, double mass) const {
    const Matrix scores = ScoresOf(layer.fc1.Dequantized(), layer.fc2.Dequantized(), layer.bias);
    return Calibrate(scores.view(), gates_.view(), mass);
  }

 private:
  Matrix ScoresOf(const Matrix& fc1, const Matrix& fc2, const std::vector<float>& bias) const {
    return Scores(samples_, fc1.view(), fc2.view(), bias, n_threads_);
  }

  const MatrixView samples_;
  const int n_threads_;
  const Matrix gates_;  // [n_tokens, d_ff]
};

absl::Status CheckShapes(MatrixView samples, MatrixView gate, const LowRank& start) {
  const bool fits = samples.n_cols == gate.n_cols && start.fc1.n_cols == gate.n_cols &&
                    start.fc2.n_rows == gate.n_rows && start.fc1.n_rows == start.fc2.n_cols;
  if (!fits) {
    return absl::InvalidArgumentError(fmt::format(
        "no predictor from samples [{}, {}], a gate of [{}, {}] and a closed form of [{}, {}] and "
        "[{}, {}]",
        samples.n_rows, samples.n_cols, gate.n_rows, gate.n_cols, start.fc1.n_rows,
        start.fc1.n_cols, start.fc2.n_rows, start.fc2.n_cols));
  }
  if (samples.n_rows >= kMinSamples) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} samples of FFN inputs are too few to train on, {} the least: take a longer "
                  "calibration text",
                  samples.n_rows, kMinSamples));
}

// The best weights of all epochs, the first ones included.
absl::StatusOr<PredictorWeights> Descend(MatrixView training, MatrixView gate,
                                         PredictorWeights weights, const HeldOut& held_out,
                                         const TrainOptions& options, const TrainProgress& progress,
                                         TrainedLayer* layer) {
  const int n_epochs = options.n_epochs;
  Descent descent(training, gate, std::move(weights),
                  {.batch = std::min(options.batch, training.n_rows),
                   .n_epochs = n_epochs,
                   .seed = options.seed,
                   .n_threads = options.n_threads});
  PredictorWeights best = descent.weights();
  layer->first_loss = layer->loss = held_out.LossOf(best, descent.mean_activation());
  if (!std::isfinite(layer->loss)) {
    return absl::InvalidArgumentError("the samples of FFN inputs hold numbers that are not finite");
  }
  for (int epoch = 0; epoch < n_epochs; ++epoch) {
    const bool whole = descent.Epoch(
        [&](double share) { return progress == nullptr || progress((epoch + share) / n_epochs); });
    if (!whole) return absl::CancelledError("the training was stopped");
    const double loss = held_out.LossOf(descent.weights(), descent.mean_activation());
    if (loss < layer->loss) {
      layer->loss = loss;
      best = descent.weights();
    }
  }
  return best;
}

}  // namespace

SampleSplit SplitSamples(MatrixView samples) {
  const int64_t n_held_out = std::min((samples.n_rows + 7) / 8, kMaxHeldOut);
  const int64_t n_training = samples.n_rows - n_held_out;
  return {samples.rows(0, n_training), samples.rows(n_training, samples.n_rows)};
}

absl::StatusOr<TrainedLayer> TrainLayer(MatrixView samples, MatrixView gate, const LowRank& start,
                                        const TrainOptions& options,
                                        const TrainProgress& progress) {
  RETURN_IF_ERROR(CheckShapes(samples, gate, start));
  const auto [training, held_out_samples] = SplitSamples(samples);
  const HeldOut held_out(held_out_samples, gate, options.n_threads);
  TrainedLayer layer;
  ASSIGN_OR_RETURN(PredictorWeights weights,
                   Descend(training, gate, FirstWeights(start, training, gate, options.n_threads),
                           held_out, options, progress, &layer));
  ASSIGN_OR_RETURN(layer.fc1, QuantizeRows(Transposed(weights.fc1.view()).view(), options.type));
  ASSIGN_OR_RETURN(layer.fc2, QuantizeRows(Transposed(weights.fc2.view()).view(), options.type));
  layer.bias = std::move(weights.bias);
  layer.selection = held_out.SelectionOf(layer, options.mass);
  return layer;
}

}  // namespace thermocline
