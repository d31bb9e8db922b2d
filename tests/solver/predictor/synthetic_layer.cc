#include "tests/solver/predictor/synthetic_layer.h"

#include <cmath>
#include <random>

namespace thermocline::testing {

Matrix RandomMatrix(int64_t n_rows, int64_t n_cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(n_rows, n_cols);
  for (float& value : m.values) value = normal(random);
  return m;
}

SyntheticLayer MakeSyntheticLayer(int64_t n_tokens, int64_t d_model, int64_t d_ff, uint64_t seed) {
  SyntheticLayer layer = {RandomMatrix(n_tokens, d_model, seed),
                          RandomMatrix(d_ff, d_model, seed + 1)};
  const Matrix mixing = RandomMatrix(d_model, d_model, seed + 2);
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t k = 1; k < d_model; ++k) {
      layer.samples.row(t)[k] *= 2 / std::sqrt(static_cast<float>(k));
    }
    layer.samples.row(t)[0] = 1;
  }
  layer.samples = Product(layer.samples.view(), mixing.view(), 1);
  // Gates get a mean below 0, by a direction that the constant part alone has.
  const float* constant = mixing.row(0);
  double square = 0;
  for (int64_t k = 0; k < d_model; ++k) square += constant[k] * constant[k];
  for (int64_t i = 0; i < d_ff; ++i) {
    // Every other neuron is loud and hardly ever fires: the closed form spends its rank on it.
    const bool is_loud = i % 2 == 1;
    const double mean = (is_loud ? -40 : -6) * std::sqrt(static_cast<double>(d_model));
    double dot = 0;
    for (int64_t k = 0; k < d_model; ++k) {
      if (is_loud) layer.gate.row(i)[k] *= 3;
      dot += layer.gate.row(i)[k] * constant[k];
    }
    const auto shift = static_cast<float>((mean - dot) / square);
    for (int64_t k = 0; k < d_model; ++k) layer.gate.row(i)[k] += shift * constant[k];
  }
  return layer;
}

}  // namespace thermocline::testing
