// Sets the threshold of a layer's predictor on samples that it was not trained on. ReLU models: a
// neuron fires when gate . x is above 0, and that is its activation.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/profile.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

// Scores of neurons: fc2 . (fc1 . x) + bias, no ReLU between. -> [n_tokens, d_ff]
// samples [n_tokens, d_model], fc1 [rank, d_model], fc2 [d_ff, rank], bias [d_ff] or empty.
Matrix Scores(MatrixView samples, MatrixView fc1, MatrixView fc2, const std::vector<float>& bias,
              int n_threads);

// The largest threshold that keeps at least the share `mass` of the activation mass (the sum of the
// activations; a miss costs what it loses), 0 < mass <= 1, and what it does on these samples.
// scores and gates [n_tokens, d_ff]; gates are gate . x. Where nothing fires nothing is computed.
Selection Calibrate(MatrixView scores, MatrixView gates, double mass);

}  // namespace thermocline
