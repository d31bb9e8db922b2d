// How often each neuron of a layer fires, hottest first: from a profile, or a curve that stands for
// a model whose profile we do not have.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/profile.h"
#include "solver/placement/model_shape.h"

namespace thermocline {

struct FiringTable {
  std::vector<double> fires;     // [d_ff], hottest first: share of tokens, 0..1
  std::vector<double> routed;    // [d_ff]: share of tokens that see the neuron's expert; empty: all
  std::vector<int32_t> numbers;  // [d_ff]: of these neurons in the model's file; empty: not known
  double mean() const;           // share of the neurons that fire for a token
  double total() const;          // neurons that fire for a token
};

// A described model: `firing` of a layer's neurons (of an expert's, when it is used) fire for a
// token, and the hottest `hot_share` carry `hot_mass` of the firings.
struct FiringCurve {
  double firing = 0.1;
  double hot_share = 0.26, hot_mass = 0.8;
};

// Firing falls exponentially from the hottest neuron to the coldest: f(x) = firing * k * exp(-k x)
// / (1 - exp(-k)), x in 0..1, with k from the curve's two shares, cut at 1. Two points of the same
// measured model (hottest 10 % carry 47 %, 29 % carry 85 %) lie on one such curve (k 6.4).
// In a mixture of experts each expert has this curve within itself and is used with the same
// probability, n_experts_used / n_experts.
std::vector<FiringTable> FiringOfCurve(const ModelShape& shape, const FiringCurve& curve);

// What is published of models of this kind: PowerInfer (arXiv 2312.12456), Table 3 and its section
// on locality.
FiringCurve DefaultCurve(const ModelShape& shape);

// The same neurons as the file has them. For a table with numbers.
FiringTable InFileOrder(const FiringTable& table);

// [n_layers]. An expert is taken to be used in proportion to its neurons' firings, and at least as
// often as its most active neuron fires: the profile counts neurons, not routes.
std::vector<FiringTable> FiringOfProfile(const Profile& profile, const ModelShape& shape);

}  // namespace thermocline
