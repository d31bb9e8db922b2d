// Counted operations, and measured rates.
#include "solver/profile/cost.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/model/sparsity.h"

namespace thermocline {
namespace {

// A thread's rates, 1e9 operations a second: measured on 2 threads of an AVX-512 machine, solve of
// a 110M model. int8 products, and f32 ones; f64 on several threads, and on one.
constexpr double kForwardGops = 75, kProfileGops = 40, kRanksGops = 40, kTrainingGops = 40;
constexpr double kDoubleGops = 8, kAloneGops = 5;

// As thresholds.cc, ranks and training have them.
constexpr double kThresholdTokens = 2 * 4096;
constexpr double kRankTokens = 1024, kRankChoices = 12, kMostOfMean = 1.6;
constexpr double kBackAndForth = 3;  // a step of descent: there, and two products back

double Seconds(double operations, double gops, int n_threads) {
  return operations / (gops * 1e9 * n_threads);
}

// A closed form of a rank: covariance, then 7 rounds of products with three [d_model, d_model]
// matrices, each made orthogonal by two passes over its columns, in f64.
double ClosedFormShared(double d_model, double d_ff, double n_samples, double rank) {
  const double products = 2 * d_model * d_model * (n_samples + d_ff + 7 * 3 * rank);
  return products + 7 * 2 * 2 * d_model * rank * rank * kRanksGops / kDoubleGops;
}

// Factors of the rounds and of the covariance, eigenvectors, and products with the factor.
double ClosedFormAlone(double d_model, double rank) {
  return 14 * rank * rank * rank + d_model * d_model * (d_model / 3 + 2 * rank);
}

}  // namespace

double SolveCost::forward_s(int n) const { return Seconds(forward, kForwardGops, n); }
double SolveCost::profile_s(int n) const { return Seconds(profile, kProfileGops, n); }
double SolveCost::ranks_s(int n) const {
  return Seconds(ranks, kRanksGops, n) + Seconds(ranks_alone, kAloneGops, 1);
}
double SolveCost::training_s(int n) const {
  return Seconds(training, kTrainingGops, n) + Seconds(training_alone, kAloneGops, 1);
}
// Neurons by themselves are computed at half the rate of whole matrices.
double SolveCost::quality_s(int n) const { return Seconds(quality, kForwardGops / 2, n); }
double SolveCost::total_s(int n) const {
  return forward_s(n) + profile_s(n) + ranks_s(n) + training_s(n) + quality_s(n);
}

SolveCost CountOperations(const ModelShape& shape, const SolvePass& pass) {
  const ModelConfig& config = shape.config;
  const auto d_model = static_cast<double>(config.d_model), d_ff = static_cast<double>(config.d_ff);
  const auto n_layers = static_cast<double>(config.n_layers);
  const auto n_tokens = static_cast<double>(pass.n_tokens);
  const auto n_samples = static_cast<double>(pass.n_samples);
  const double heads = static_cast<double>(2 * config.n_heads + 2 * config.n_kv_heads) *
                       static_cast<double>(config.d_head);
  const double gate = 2 * d_model * d_ff;  // of one token
  SolveCost cost;
  cost.forward = pass.n_runs * n_layers * n_tokens * (2 * d_model * heads + 3 * gate);
  const double of_token = n_layers * (2 * d_model * heads + 3 * gate) +
                          2 * d_model * static_cast<double>(config.n_vocab);
  cost.quality = 2.0 * pass.n_modes * static_cast<double>(pass.n_quality) * of_token;
  const double threshold_tokens = std::min(2 * n_samples, kThresholdTokens);
  cost.profile = n_layers * threshold_tokens * gate * (1 + kMaxSketchBits);
  if (pass.mean_rank <= 0) return cost;
  const double of_rank = 2 * pass.mean_rank * (d_model + d_ff);  // a predictor, of one token
  const double most = std::min(kMostOfMean * pass.mean_rank, d_model);
  const double rank_tokens = std::min(n_samples / 8, kRankTokens);
  cost.ranks = n_layers * (ClosedFormShared(d_model, d_ff, n_samples, most) +
                           rank_tokens * (gate + kRankChoices * of_rank));
  cost.ranks_alone = n_layers * ClosedFormAlone(d_model, most);
  cost.training =
      n_layers * (ClosedFormShared(d_model, d_ff, n_samples, pass.mean_rank) + n_samples * gate +
                  pass.n_epochs * n_samples * of_rank * kBackAndForth);
  cost.training_alone = n_layers * ClosedFormAlone(d_model, pass.mean_rank);
  return cost;
}

std::string DurationText(double seconds) {
  if (seconds < 90) return fmt::format("about {:.0f} seconds", std::max(seconds, 1.0));
  if (seconds < 5400) return fmt::format("about {:.0f} minutes", seconds / 60);
  return fmt::format("about {:.1f} hours", seconds / 3600);
}

}  // namespace thermocline
