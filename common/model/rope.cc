// base^(-2i / n_rot), scaled.
#include "common/model/rope.h"

#include <cmath>

namespace thermocline {

std::vector<double> RopeFrequencies(const ModelConfig& config, const float* factors) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.n_rot / 2; ++i) {
    const double factor = factors != nullptr ? factors[i] : 1.0;
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.n_rot);
    frequencies.push_back(std::pow(config.rope_freq_base, exponent) * config.rope_freq_scale /
                          factor);
  }
  return frequencies;
}

void RopeAngles(const std::vector<double>& frequencies, int64_t position, float* cos, float* sin) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cos[i] = static_cast<float>(std::cos(angle));
    sin[i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace thermocline
