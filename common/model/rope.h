// The angles of rotary position embeddings, in f64, so that every device rotates by the same f32
// cosines and sines.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/config.h"

namespace thermocline {

// [n_rot / 2]: radians a position. factors [n_rot / 2] (rope_freqs.weight), or null.
std::vector<double> RopeFrequencies(const ModelConfig& config, const float* factors);
// cos and sin [frequencies.size()] at a position.
void RopeAngles(const std::vector<double>& frequencies, int64_t position, float* cos, float* sin);

}  // namespace thermocline
