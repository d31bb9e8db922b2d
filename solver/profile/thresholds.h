// Thresholds of the modes that need no training, sketch and threshold, and what they do: set on
// some samples of a layer's FFN inputs, measured on others.
#pragma once

#include <cstdint>

#include "common/model/config.h"
#include "common/model/profile.h"
#include "solver/predictor/matrix.h"
#include "solver/profile/gate_scores.h"

namespace thermocline {

struct ThresholdOptions {
  Activation activation = Activation::kRelu;
  // Of the firings, that a sketch keeps of the samples it is set on. One of 3 bits misses half as
  // many: it sees so well that this takes few neurons more (1.19 to 1.3 times those that fire).
  double recall = 0.98;
  double skip_share = 0.25;  // of the neurons that fire, that mode threshold leaves out
  int n_threads = 1;         // the result does not depend on it
};

// Sketches (ReLU models; else left as they are) and magnitude of a layer, with `fired` as it is.
// calibration, held_out [n, d_model]: of each a few thousand tokens are used. A threshold is the
// largest one that meets its target. In a model without ReLU every neuron counts as firing.
void SetThresholds(const GateScores& gate, MatrixView calibration, MatrixView held_out,
                   const ThresholdOptions& options, LayerProfile* layer);

// Tokens for which |gate| is above the layer's magnitude threshold: what stands for firings in a
// model without ReLU. -> [d_ff]
std::vector<uint32_t> CountAboveMagnitude(const GateScores& gate, MatrixView samples,
                                          const LayerProfile& layer, int n_threads);

}  // namespace thermocline
