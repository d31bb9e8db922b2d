// A profile: how often each neuron of a model fired on a calibration text, and the thresholds that
// were set on it. Plain data and its file (profile.gguf of a predictor folder).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/sparsity.h"

namespace thermocline {

// What one way of ruling neurons out does on tokens that it was not calibrated on.
struct Selection {
  float threshold = 0;  // a neuron is computed when its score is above it
  float computed = 0;   // share of the neurons that are computed, 0..1
  float recall = 0;     // share of the firings that are kept
  float mass = 0;       // share of the activation mass, sum of |act(gate)|, that is kept
  bool operator==(const Selection&) const = default;
};

struct LayerProfile {
  std::vector<uint32_t> fired;       // [d_ff], tokens for which the neuron fired
  Selection sketch[kMaxSketchBits];  // of 1, 2, 3 bits; ReLU models
  Selection magnitude;               // mode threshold: on |gate|; in ReLU models on the gate
  bool operator==(const LayerProfile&) const = default;
};

// Mean KL divergence of next-token distributions from mode off, in nats, with all layers in one
// mode; on text that nothing was set on. Below 0: not measured.
struct MeasuredKl {
  float sketch[kMaxSketchBits] = {-1, -1, -1};  // of 1, 2, 3 bits
  float predict = -1;                           // by the predictor that the profile lies beside
  float threshold = -1;
  bool operator==(const MeasuredKl&) const = default;
};

struct Profile {
  std::string model_hash;  // GgufFile::ContentHash
  std::string text_hash;   // SHA-256 of the calibration text, hexadecimal
  int64_t n_tokens = 0;    // that were counted
  float recall = 0;        // that the sketches' thresholds were set for; 0: not set
  MeasuredKl kl = {};
  std::vector<LayerProfile> layers;  // [n_layers]
  // Counts that were imported have none: they order neurons, and say nothing of scores.
  bool has_thresholds() const { return recall > 0; }
  bool operator==(const Profile&) const = default;
};

// Neurons of a layer, hottest first; ties in file order. [d_ff]
std::vector<int32_t> HottestFirst(const LayerProfile& layer);

// InvalidArgument names the file and the key or tensor: missing, of a wrong shape, not finite, out
// of range.
absl::StatusOr<Profile> ReadProfile(const std::string& path);
// Written under a temporary name and renamed.
absl::Status WriteProfile(const Profile& profile, const std::string& path);
// FailedPrecondition with both hashes, or both shapes, when the profile is of another model.
absl::Status CheckProfile(const Profile& profile, const std::string& path,
                          const std::string& model_hash, int64_t n_layers, int64_t d_ff);

}  // namespace thermocline
