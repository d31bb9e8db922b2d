// Writes predictor.gguf from trained layers (common/model/predictor.h reads it).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "solver/predictor/train.h"

namespace thermocline {

// layers [n_layers] of a model with this content hash. Whole or not at all: under a temporary name,
// then renamed. The error names the path.
absl::Status WritePredictor(const std::vector<TrainedLayer>& layers, const std::string& model_hash,
                            const std::string& path);

}  // namespace thermocline
