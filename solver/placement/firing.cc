// Firing curves and counts.
#include "solver/placement/firing.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace thermocline {
namespace {

// k with (1 - exp(-k a)) / (1 - exp(-k)) = b, by bisection; 0 (all alike) when b <= a.
double Steepness(double a, double b) {
  if (b <= a) return 0;
  double low = 0, high = 1000;
  for (int i = 0; i < 100; ++i) {
    const double k = (low + high) / 2;
    (std::expm1(-k * a) / std::expm1(-k) < b ? low : high) = k;
  }
  return low;
}

// [n_experts], or empty when there is one only.
std::vector<double> RouteShares(const LayerProfile& layer, double n_tokens,
                                const ModelShape& shape) {
  if (shape.n_experts <= 1) return {};
  const int64_t n = shape.config.d_ff / shape.n_experts;  // neurons of an expert
  std::vector<double> shares, most;
  for (int64_t expert = 0; expert < shape.n_experts; ++expert) {
    const auto first = layer.fired.begin() + expert * n;
    shares.push_back(std::accumulate(first, first + n, 0.0));
    most.push_back(static_cast<double>(*std::max_element(first, first + n)) / n_tokens);
  }
  const double sum = std::max(std::accumulate(shares.begin(), shares.end(), 0.0), 1.0);
  for (size_t expert = 0; expert < shares.size(); ++expert) {
    const double share = shares[expert] / sum * static_cast<double>(shape.n_experts_used);
    shares[expert] = std::clamp(share, std::min(most[expert], 1.0), 1.0);
  }
  return shares;
}

}  // namespace

double FiringTable::total() const { return std::accumulate(fires.begin(), fires.end(), 0.0); }

double FiringTable::mean() const { return total() / static_cast<double>(fires.size()); }

std::vector<FiringTable> FiringOfCurve(const ModelShape& shape, const FiringCurve& curve) {
  const int64_t n = shape.config.d_ff / shape.n_experts;
  const double used =
      static_cast<double>(shape.n_experts_used) / static_cast<double>(shape.n_experts);
  const double k = Steepness(curve.hot_share, curve.hot_mass);
  FiringTable table;
  for (int64_t i = 0; i < n; ++i) {
    const double x = (static_cast<double>(i) + 0.5) / static_cast<double>(n);
    const double density = k > 0 ? -k * std::exp(-k * x) / std::expm1(-k) : 1;
    const double fires = used * std::min(1.0, curve.firing * density);
    table.fires.insert(table.fires.end(), shape.n_experts, fires);
  }
  if (shape.n_experts > 1) table.routed.assign(table.fires.size(), used);
  return std::vector<FiringTable>(shape.config.n_layers, table);
}

// Shares that fire: Table 3 of the paper. Shares of the hottest: its section on locality, of one
// MLP block (ReLU: OPT-30B; ReGLU and SwiGLU: 70B). For SwiGLU "fires" means "is not prunable".
FiringCurve DefaultCurve(const ModelShape& shape) {
  const bool has_gate = shape.layers.front().gate_bytes > 0;
  if (!has_gate) return {0.03, 0.26, 0.80};
  if (!IsRelu(shape.config.activation)) return {0.55, 0.69, 0.80};
  const bool is_large = shape.config.d_model >= 7168;
  return {is_large ? 0.18 : 0.25, 0.43, 0.80};
}

FiringTable InFileOrder(const FiringTable& table) {
  FiringTable file = table;
  for (size_t i = 0; i < table.numbers.size(); ++i) {
    const int32_t neuron = table.numbers[i];
    file.fires[neuron] = table.fires[i];
    if (!table.routed.empty()) file.routed[neuron] = table.routed[i];
    file.numbers[neuron] = neuron;
  }
  return file;
}

std::vector<FiringTable> FiringOfProfile(const Profile& profile, const ModelShape& shape) {
  const double n_tokens = static_cast<double>(std::max<int64_t>(profile.n_tokens, 1));
  std::vector<FiringTable> tables;
  for (const LayerProfile& layer : profile.layers) {
    FiringTable& table = tables.emplace_back();
    const std::vector<double> routed = RouteShares(layer, n_tokens, shape);
    table.numbers = HottestFirst(layer);
    for (const int32_t neuron : table.numbers) {
      table.fires.push_back(std::min(1.0, static_cast<double>(layer.fired[neuron]) / n_tokens));
      if (!routed.empty()) {
        table.routed.push_back(routed[neuron * shape.n_experts / shape.config.d_ff]);
      }
    }
  }
  return tables;
}

}  // namespace thermocline
