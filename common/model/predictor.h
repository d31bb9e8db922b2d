// The predictor of a model as it lies in files: predictor.gguf of a predictor folder, or the fc1
// and fc2 tensors of a PowerInfer model itself. Names, shapes, keys and their check; the weights
// stay in the file. For each layer: score = fc2 . relu(fc1 . x), and a neuron is computed when its
// score is above the layer's threshold.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"

namespace thermocline {

struct PredictorLayer {
  const GgufTensor* fc1 = nullptr;   // [rank, d_model]
  const GgufTensor* fc2 = nullptr;   // [d_ff, rank]
  const GgufTensor* bias = nullptr;  // [d_ff] f32, added to the score; null: none
  int64_t rank = 0;                  // may differ from layer to layer
  float threshold = 0;
};

struct Predictor {
  bool reads_residual = false;  // x is the residual before the FFN norm (PowerInfer), or after it
  bool has_relu = true;         // between fc1 and fc2
  std::vector<PredictorLayer> layers;  // [n_layers]; pointers into the file
};

// From a PowerInfer model (PWRI): its fc1/fc2 and powerinfer.sparse_threshold. NotFound when the
// model has none.
absl::StatusOr<Predictor> PredictorOfModel(const GgufFile& model, const ModelConfig& config);
// From a predictor.gguf. FailedPrecondition names both hashes when it was made for another model;
// InvalidArgument names the tensor or key that is missing, of a wrong shape or type, or not finite.
absl::StatusOr<Predictor> ReadPredictor(const GgufFile& file, const ModelConfig& config,
                                        const std::string& model_hash);

}  // namespace thermocline
