// Gradient descent on a predictor's weights: mini-batches, Adam, a rate that warms up and then
// falls. train.h says what the loss is; thresholds, quantization and when to stop are elsewhere.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "solver/predictor/closed_form.h"
#include "solver/predictor/math.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

// What a miss of mean activation costs; a neuron computed for nothing costs 1. On the models that
// were tried 16 to 64 differ little.
inline constexpr float kMissCost = 32;

// The weights, laid out for products over tokens.
struct PredictorWeights {
  Matrix fc1;               // [d_model, rank]
  Matrix fc2;               // [rank, d_ff]
  std::vector<float> bias;  // [d_ff]
};

// The closed form, its scores scaled neuron by neuron to what a logistic wants. samples [n_tokens,
// d_model], gate [d_ff, d_model].
PredictorWeights FirstWeights(const LowRank& start, MatrixView samples, MatrixView gate,
                              int n_threads);

struct DescentOptions {
  int64_t batch = 1024;  // tokens of a step
  int n_epochs = 1;      // over which the rate falls
  uint64_t seed = 1;
  int n_threads = 1;
};

class Descent {
 public:
  // samples [n_tokens, d_model], at least a batch, must outlive this; gate [d_ff, d_model].
  Descent(MatrixView samples, MatrixView gate, PredictorWeights weights,
          const DescentOptions& options);

  // One pass over the samples in random order. False when `go_on`, called after each step with the
  // share of the pass that is done, was false.
  bool Epoch(const std::function<bool(double)>& go_on);

  const PredictorWeights& weights() const { return weights_; }
  // Mean of the activations that are not 0; 1 when nothing fires.
  double mean_activation() const { return mean_activation_; }

 private:
  struct Moments {
    std::vector<float> mean, square;
    float first_rate;  // of a step, in units of the weight
    Moments(size_t n, float rate) : mean(n), square(n), first_rate(rate) {}
  };
  void FillGates(MatrixView gate);
  void Step(const int64_t* tokens);
  void GatherTokens(int64_t part, const int64_t* tokens);
  void StepNeurons(int64_t part, const int64_t* tokens);
  void SumHiddenSlopes(int64_t part);
  void StepInputs(int64_t part);
  void Update(Moments* moments, int64_t at, const float* slope, int64_t n, float* weights) const;

  const math::Math& math_;
  const MatrixView samples_;
  const DescentOptions options_;
  PredictorWeights weights_;
  Moments fc1_, fc2_, bias_;
  std::vector<uint16_t> gates_;  // [n_tokens, d_ff], f16
  double mean_activation_ = 1;
  int64_t step_ = 0;
  // Of the batch at hand.
  Matrix inputs_;                             // [batch, d_model]
  Matrix hidden_;                             // [batch, rank]
  Matrix hidden_slope_;                       // [batch, rank]
  std::vector<Matrix> hidden_slope_of_part_;  // by part of the neurons, [batch, rank] each
};

}  // namespace thermocline
