// The predictors of a model's layers, which share a budget: what each rank would do, which ranks to
// take, then the training. Layer by layer, so that samples of few layers need to be there at once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "solver/predictor/ranks.h"
#include "solver/predictor/train.h"

namespace thermocline {

class PredictorMaker {
 public:
  // budget_bytes: of all layers' predictors together. InvalidArgument when it is too small for the
  // smallest ranks, with what would do.
  static absl::StatusOr<PredictorMaker> Create(const ModelConfig& config, int64_t budget_bytes,
                                               const TrainOptions& options);

  double mean_rank() const;  // that the budget allows

  // For each layer, in order. samples [n, d_model] and gate [d_ff, d_model] as TrainLayer's.
  absl::Status Measure(MatrixView samples, MatrixView gate);
  // After all layers were measured.
  absl::Status ChooseRanks();
  absl::StatusOr<TrainedLayer> Train(int64_t layer, MatrixView samples, MatrixView gate,
                                     const TrainProgress& progress) const;

 private:
  PredictorMaker(const ModelConfig& config, int64_t budget_weights, const TrainOptions& options);

  ModelConfig config_;
  int64_t budget_weights_;
  TrainOptions options_;
  std::vector<int64_t> candidates_;               // ranks
  std::vector<std::vector<RankChoice>> choices_;  // [n_layers]
  std::vector<int64_t> ranks_;                    // [n_layers]
};

}  // namespace thermocline
