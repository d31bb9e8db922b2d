#include "solver/predictor/descent.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <utility>

#include "solver/predictor/parallel.h"

namespace thermocline {
namespace {

// Found on the models that were tried; half or twice as much changes little.
constexpr float kRate = 0.05f;       // of fc1 and fc2, in means of the weights' magnitudes
constexpr float kBiasRate = 0.005f;  // of the bias, in units of the score
constexpr double kLastRate = 0.02;   // of the first one
constexpr int64_t kWarmUp = 50;      // steps
constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
// The scale of a logistic whose spread is that of a normal distribution of spread 1.
constexpr float kLogisticScale = 1.7f;
constexpr int64_t kScaleTokens = 4096;  // that scores are scaled on
// Parts that threads take: fixed, so that no sum depends on the number of threads.
constexpr int64_t kPartNeurons = 256;
constexpr int64_t kPartInputs = 64;
constexpr int64_t kPartTokens = 128;

int64_t PartsOf(int64_t n, int64_t part) { return (n + part - 1) / part; }

float MeanMagnitude(const Matrix& m) {
  double sum = 0;
  for (const float value : m.values) sum += std::abs(value);
  return static_cast<float>(sum / static_cast<double>(m.values.size()));
}

// At most n rows, spread evenly.
Matrix SomeRows(MatrixView m, int64_t n) {
  const int64_t stride = PartsOf(m.n_rows, n);
  Matrix some(PartsOf(m.n_rows, stride), m.n_cols);
  for (int64_t i = 0; i < some.n_rows; ++i) {
    std::copy_n(m.row(i * stride), m.n_cols, some.row(i));
  }
  return some;
}

}  // namespace

PredictorWeights FirstWeights(const LowRank& start, MatrixView samples, MatrixView gate,
                              int n_threads) {
  PredictorWeights weights = {Transposed(start.fc1.view()), Transposed(start.fc2.view()), {}};
  const Matrix inputs = SomeRows(samples, kScaleTokens);
  const Matrix gates = Product(inputs.view(), Transposed(gate).view(), n_threads);
  const Matrix hidden = Product(inputs.view(), weights.fc1.view(), n_threads);
  const Matrix scores = Product(hidden.view(), weights.fc2.view(), n_threads);
  std::vector<double> errors(gate.n_rows), squares(gate.n_rows);
  for (int64_t t = 0; t < gates.n_rows; ++t) {
    for (int64_t i = 0; i < gate.n_rows; ++i) {
      const double value = gates.row(t)[i], error = value - scores.row(t)[i];
      squares[i] += value * value;
      errors[i] += error * error;
    }
  }
  for (int64_t i = 0; i < gate.n_rows; ++i) {
    // A rank that leaves no error would ask for an endless slope.
    const double spread =
        std::sqrt(std::max(errors[i], 4e-4 * squares[i]) / static_cast<double>(gates.n_rows));
    const float scale = spread > 0 ? static_cast<float>(kLogisticScale / spread) : 1.0f;
    for (int64_t k = 0; k < weights.fc2.n_rows; ++k) weights.fc2.row(k)[i] *= scale;
  }
  weights.bias.assign(gate.n_rows, std::log(kMissCost) / 2);
  return weights;
}

Descent::Descent(MatrixView samples, MatrixView gate, PredictorWeights weights,
                 const DescentOptions& options)
    : math_(math::math_of(kernels::detect_isa())),
      samples_(samples),
      options_(options),
      weights_(std::move(weights)),
      fc1_(weights_.fc1.values.size(), kRate * MeanMagnitude(weights_.fc1)),
      fc2_(weights_.fc2.values.size(), kRate * MeanMagnitude(weights_.fc2)),
      bias_(weights_.bias.size(), kBiasRate),
      inputs_(options.batch, samples.n_cols),
      hidden_(options.batch, weights_.fc1.n_cols),
      hidden_slope_(options.batch, weights_.fc1.n_cols),
      hidden_slope_of_part_(PartsOf(gate.n_rows, kPartNeurons), hidden_) {
  FillGates(gate);
}

void Descent::FillGates(MatrixView gate) {
  const int64_t d_ff = gate.n_rows, n_parts = PartsOf(samples_.n_rows, kPartTokens);
  const Matrix columns = Transposed(gate);
  gates_.resize(samples_.n_rows * d_ff);
  std::vector<std::pair<double, int64_t>> sums(n_parts);  // of activations, and how many
  ForParts(options_.n_threads, n_parts, [&](int64_t part) {
    const int64_t begin = part * kPartTokens;
    const MatrixView tokens = samples_.rows(begin, std::min(begin + kPartTokens, samples_.n_rows));
    const Matrix gates = Product(tokens, columns.view(), 1);
    for (const float value : gates.values) {
      if (value > 0) sums[part].first += value, sums[part].second += 1;
    }
    kernels::ops(kernels::detect_isa())
        .f32_to_f16(gates.values.data(), std::ssize(gates.values), gates_.data() + begin * d_ff);
  });
  double sum = 0;
  int64_t n = 0;
  for (const auto& [of_part, n_of_part] : sums) sum += of_part, n += n_of_part;
  if (n > 0) mean_activation_ = sum / static_cast<double>(n);
}

bool Descent::Epoch(const std::function<bool(double)>& go_on) {
  std::vector<int64_t> order(samples_.n_rows);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(options_.seed + step_);
  std::shuffle(order.begin(), order.end(), random);
  const int64_t n_steps = samples_.n_rows / options_.batch;
  for (int64_t i = 0; i < n_steps; ++i) {
    Step(order.data() + i * options_.batch);
    if (!go_on(static_cast<double>(i + 1) / static_cast<double>(n_steps))) return false;
  }
  return true;
}

void Descent::Step(const int64_t* tokens) {
  ++step_;
  const int64_t n_token_parts = PartsOf(options_.batch, kPartTokens);
  const auto run = [&](int64_t n_parts, auto part) { ForParts(options_.n_threads, n_parts, part); };
  run(n_token_parts, [&](int64_t part) { GatherTokens(part, tokens); });
  run(std::ssize(hidden_slope_of_part_), [&](int64_t part) { StepNeurons(part, tokens); });
  run(n_token_parts, [&](int64_t part) { SumHiddenSlopes(part); });
  run(PartsOf(samples_.n_cols, kPartInputs), [&](int64_t part) { StepInputs(part); });
}

void Descent::GatherTokens(int64_t part, const int64_t* tokens) {
  const int64_t begin = part * kPartTokens, end = std::min(begin + kPartTokens, options_.batch);
  for (int64_t t = begin; t < end; ++t) {
    std::copy_n(samples_.row(tokens[t]), samples_.n_cols, inputs_.row(t));
  }
  std::fill(hidden_.row(begin), hidden_.row(end), 0.0f);
  math_.multiply({inputs_.row(begin), inputs_.n_cols, 1}, weights_.fc1.row(0), weights_.fc1.n_cols,
                 end - begin, hidden_.n_cols, inputs_.n_cols, hidden_.row(begin), hidden_.n_cols);
}

// Forward and back through fc2, and its step, for the neurons of one part.
void Descent::StepNeurons(int64_t part, const int64_t* tokens) {
  const int64_t d_ff = weights_.fc2.n_cols, rank = weights_.fc2.n_rows, n_tokens = options_.batch;
  const int64_t first = part * kPartNeurons, n = std::min(kPartNeurons, d_ff - first);
  float* const fc2 = weights_.fc2.row(0) + first;  // [rank, n], rows d_ff apart
  Matrix slope(n_tokens, n);                       // scores at first
  for (int64_t t = 0; t < n_tokens; ++t) std::copy_n(&weights_.bias[first], n, slope.row(t));
  math_.multiply({hidden_.row(0), rank, 1}, fc2, d_ff, n_tokens, n, rank, slope.row(0), n);
  const float scale = static_cast<float>(kMissCost / mean_activation_);
  std::vector<float> bias_slope(n);
  for (int64_t t = 0; t < n_tokens; ++t) {
    math_.logistic_slope(slope.row(t), &gates_[tokens[t] * d_ff + first], scale, n);
    for (int64_t i = 0; i < n; ++i) bias_slope[i] += slope.row(t)[i];
  }
  Matrix fc2_rows(n, rank);
  for (int64_t k = 0; k < rank; ++k) {
    for (int64_t i = 0; i < n; ++i) fc2_rows.row(i)[k] = fc2[k * d_ff + i];
  }
  hidden_slope_of_part_[part] = Product(slope.view(), fc2_rows.view(), 1);
  const Matrix fc2_slope = TransposedProduct(hidden_.view(), slope.view(), 1);
  for (int64_t k = 0; k < rank; ++k) {
    Update(&fc2_, k * d_ff + first, fc2_slope.row(k), n, weights_.fc2.values.data());
  }
  Update(&bias_, first, bias_slope.data(), n, weights_.bias.data());
}

void Descent::SumHiddenSlopes(int64_t part) {
  const int64_t begin = part * kPartTokens, end = std::min(begin + kPartTokens, options_.batch);
  const int64_t n = (end - begin) * hidden_slope_.n_cols;
  float* const sum = hidden_slope_.row(begin);
  std::fill_n(sum, n, 0.0f);
  for (const Matrix& of_part : hidden_slope_of_part_) {
    const float* slope = of_part.row(begin);
    for (int64_t i = 0; i < n; ++i) sum[i] += slope[i];
  }
}

// Back through fc1, and its step, for the inputs of one part.
void Descent::StepInputs(int64_t part) {
  const int64_t d_model = inputs_.n_cols, rank = hidden_slope_.n_cols;
  const int64_t first = part * kPartInputs, n = std::min(kPartInputs, d_model - first);
  Matrix slope(n, rank);
  math_.multiply({inputs_.row(0) + first, 1, d_model}, hidden_slope_.row(0), rank, n, rank,
                 options_.batch, slope.row(0), rank);
  Update(&fc1_, first * rank, slope.row(0), n * rank, weights_.fc1.values.data());
}

// Weights [at, at + n) of those that the moments are of.
void Descent::Update(Moments* moments, int64_t at, const float* slope, int64_t n,
                     float* weights) const {
  const double n_steps =
      static_cast<double>(options_.n_epochs * (samples_.n_rows / options_.batch));
  const double done = std::min(static_cast<double>(step_) / n_steps, 1.0);
  const double warm = std::min(static_cast<double>(step_) / kWarmUp, 1.0);
  const double fall = (1 + std::cos(std::numbers::pi * done)) / 2;
  const double rate = moments->first_rate * warm * (kLastRate + (1 - kLastRate) * fall);
  const math::AdamStep step = {
      .rate = static_cast<float>(rate),
      .mean_share = static_cast<float>(1 - kBeta1),
      .square_share = static_cast<float>(1 - kBeta2),
      .mean_scale = static_cast<float>(1 / (1 - std::pow(kBeta1, step_))),
      .square_scale = static_cast<float>(1 / (1 - std::pow(kBeta2, step_))),
  };
  math_.adam(weights + at, &moments->mean[at], &moments->square[at], slope, step, n);
}

}  // namespace thermocline
