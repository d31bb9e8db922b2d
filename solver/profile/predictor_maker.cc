// Candidate ranks around what the budget allows on average.
#include "solver/profile/predictor_maker.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr int64_t kMostCandidates = 12;
constexpr double kMostOfMean = 1.6;    // the largest candidate, in mean ranks
constexpr int64_t kRankTokens = 1024;  // that a rank is measured on

}  // namespace

absl::StatusOr<PredictorMaker> PredictorMaker::Create(const ModelConfig& config,
                                                      int64_t budget_bytes,
                                                      const TrainOptions& options) {
  const TypeInfo* type = type_info(options.type);
  const int64_t bias_bytes = config.n_layers * config.d_ff * static_cast<int64_t>(sizeof(float));
  const int64_t n_weights = (budget_bytes - bias_bytes) * type->block_size / type->block_bytes;
  const int64_t least = config.n_layers * kRankStep * (config.d_model + config.d_ff);
  if (n_weights < least) {
    return absl::InvalidArgumentError(fmt::format(
        "a predictor of {} bytes is too small for this model: the smallest takes {}; raise "
        "--predictor-budget, or give --no-predictor",
        budget_bytes, least * type->block_bytes / type->block_size + bias_bytes));
  }
  return PredictorMaker(config, n_weights, options);
}

PredictorMaker::PredictorMaker(const ModelConfig& config, int64_t budget_weights,
                               const TrainOptions& options)
    : config_(config), budget_weights_(budget_weights), options_(options) {
  const int64_t most =
      std::min({static_cast<int64_t>(kMostOfMean * mean_rank()), config.d_model, config.d_ff});
  const int64_t n_steps = std::max<int64_t>(most / kRankStep, 1);
  const int64_t stride = (n_steps + kMostCandidates - 1) / kMostCandidates;
  for (int64_t i = 1; i <= n_steps; i += stride) candidates_.push_back(i * kRankStep);
}

double PredictorMaker::mean_rank() const {
  return static_cast<double>(budget_weights_) /
         static_cast<double>(config_.n_layers * (config_.d_model + config_.d_ff));
}

absl::Status PredictorMaker::Measure(MatrixView samples, MatrixView gate) {
  const auto [training, held_out] = SplitSamples(samples);
  if (training.n_rows == 0) return absl::InvalidArgumentError("there are no samples to train on");
  ASSIGN_OR_RETURN(const LowRank start,
                   ClosedForm(training, gate, candidates_.back(), options_.n_threads));
  const MatrixView measured_on = held_out.rows(0, std::min(held_out.n_rows, kRankTokens));
  choices_.push_back(
      MeasureRanks(start, measured_on, gate, options_.mass, candidates_, options_.n_threads));
  return absl::OkStatus();
}

absl::Status PredictorMaker::ChooseRanks() {
  ASSIGN_OR_RETURN(const std::vector<int64_t> chosen,
                   thermocline::ChooseRanks(choices_, budget_weights_));
  for (size_t i = 0; i < chosen.size(); ++i) ranks_.push_back(choices_[i][chosen[i]].rank);
  return absl::OkStatus();
}

absl::StatusOr<TrainedLayer> PredictorMaker::Train(int64_t layer, MatrixView samples,
                                                   MatrixView gate,
                                                   const TrainProgress& progress) const {
  ASSIGN_OR_RETURN(const LowRank start, ClosedForm(SplitSamples(samples).training, gate,
                                                   ranks_[layer], options_.n_threads));
  return TrainLayer(samples, gate, start, options_, progress);
}

}  // namespace thermocline
