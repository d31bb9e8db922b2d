// Candidates of a layer, their estimated loss and their bytes.
#include "solver/placement/choose_modes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// Measured at a recall of 0.98: neurons computed over neurons that fire, and perplexity's rise.
struct Measured {
  double computed_over_firing, loss_pct;
};
constexpr double kMeasuredRecall = 0.98;
constexpr Measured kSketches[kMaxSketchBits] = {{3.03, 0.04}, {1.63, 0.03}, {1.19, 0.02}};
// Predictors are grown until perplexity is within 0.1 % (arXiv 2312.12456, 5.1); what they compute
// was measured for a low rank of 7 % of the FFN.
constexpr Measured kPredictor = {2.30, 0.10};

// SwiGLU: perplexity's rise with the share of neurons left out.
double ThresholdLossPct(double skipped) {
  constexpr struct {
    double skipped, loss_pct;
  } kPoints[] = {{0, 0}, {0.25, 1.9}, {0.40, 5.7}, {0.50, 13}};
  for (size_t i = 1; i < std::size(kPoints); ++i) {
    const auto& [from, from_loss] = kPoints[i - 1];
    const auto& [to, to_loss] = kPoints[i];
    if (skipped <= to) return from_loss + (skipped - from) / (to - from) * (to_loss - from_loss);
  }
  return std::numeric_limits<double>::infinity();
}

// By how much perplexity rises; `otherwise` where no divergence was measured.
double LossPct(double kl, double otherwise) { return kl < 0 ? otherwise : 100 * std::expm1(kl); }

struct Candidate {
  LayerMode mode;
  double loss_pct = 0;
};

// All modes that the layer could be computed in.
std::vector<Candidate> Candidates(const ModelShape& shape, size_t l, const FiringTable& firing,
                                  const ModeKnowledge& knowledge) {
  std::vector<Candidate> list = {{{Sparsity::kOff, 0, 1}, 0}};
  const bool is_relu = IsRelu(shape.config.activation);
  const double mean = firing.mean();
  const MeasuredKl kl = knowledge.profile != nullptr ? knowledge.profile->kl : MeasuredKl{};
  if (is_relu) list.push_back({{Sparsity::kExact, 0, mean}, 0});
  if (is_relu && shape.layers[l].has_predictor()) {
    const double computed = std::min(1.0, kPredictor.computed_over_firing * mean);
    list.push_back({{Sparsity::kPredict, 0, computed}, LossPct(kl.predict, kPredictor.loss_pct)});
  }
  for (int32_t bits = 1; is_relu && bits <= kMaxSketchBits; ++bits) {
    const Measured& measured = kSketches[bits - 1];
    if (knowledge.profile != nullptr) {
      const double computed = knowledge.profile->layers[l].sketch[bits - 1].computed;
      const double missed = (1 - knowledge.profile->recall) / (1 - kMeasuredRecall);
      if (computed > 0) {
        list.push_back({{Sparsity::kSketch, bits, computed},
                        LossPct(kl.sketch[bits - 1], measured.loss_pct * missed)});
      }
    } else if (knowledge.is_described) {
      const double computed = std::min(1.0, measured.computed_over_firing * mean);
      list.push_back({{Sparsity::kSketch, bits, computed}, measured.loss_pct});
    }
  }
  if (knowledge.profile != nullptr) {
    const double computed = knowledge.profile->layers[l].magnitude.computed;
    if (computed > 0) {
      list.push_back({{Sparsity::kThreshold, 0, computed},
                      LossPct(kl.threshold, ThresholdLossPct(1 - computed))});
    }
  } else if (!is_relu && knowledge.is_described) {
    list.push_back({{Sparsity::kThreshold, 0, mean}, ThresholdLossPct(1 - mean)});
  }
  return list;
}

double BytesOf(const ModelShape& shape, size_t l, const FiringTable& firing,
               const LayerMode& mode) {
  const std::vector<double> touched =
      TouchedBytes(shape.layers[l], shape.weight_bits, firing, mode);
  double bytes = std::accumulate(touched.begin(), touched.end(), 0.0);
  if (mode.mode == Sparsity::kPredict) {
    bytes += shape.layers[l].fc1_bytes +
             shape.layers[l].fc2_neuron_bytes * static_cast<double>(shape.config.d_ff);
  }
  return bytes;
}

absl::Status Missing(const ModelShape& shape, Sparsity mode) {
  const bool is_relu = IsRelu(shape.config.activation);
  std::string what = "a profile of the model (--predictor-path or --profile; solve makes it)";
  if (mode == Sparsity::kPredict) what = "a predictor (--predictor-path; solve makes it)";
  if (mode != Sparsity::kThreshold && !is_relu) {
    what = "a model whose activation is ReLU; this one has SiLU, for which there is threshold";
  }
  return absl::FailedPreconditionError(
      fmt::format("--sparsity {} needs {}", SparsityName(mode), what));
}

// The one that is wanted, if there is any: with the fewest bytes, or predict before all others.
std::optional<LayerMode> BestMode(const ModelShape& shape, size_t l, const FiringTable& firing,
                                  const ModeKnowledge& knowledge, const ModeRequest& request,
                                  bool predicts) {
  std::optional<LayerMode> best;
  double fewest = std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : Candidates(shape, l, firing, knowledge)) {
    const bool is_wanted = request.mode.has_value() ? candidate.mode.mode == *request.mode
                                                    : candidate.loss_pct <= request.quality_pct;
    if (!is_wanted) continue;
    if (predicts && candidate.mode.mode == Sparsity::kPredict) return candidate.mode;
    const double bytes = BytesOf(shape, l, firing, candidate.mode);
    if (bytes >= fewest) continue;
    fewest = bytes;
    best = candidate.mode;
  }
  return best;
}

}  // namespace

absl::StatusOr<ModeChoices> ChooseModes(const ModelShape& shape,
                                        const std::vector<FiringTable>& firing,
                                        const ModeKnowledge& knowledge,
                                        const ModeRequest& request) {
  ModeChoices choices;
  for (const bool predicts : {false, true}) {
    std::vector<LayerMode> modes;
    for (size_t l = 0; l < shape.layers.size(); ++l) {
      const std::optional<LayerMode> mode =
          BestMode(shape, l, firing[l], knowledge, request, predicts);
      if (!mode.has_value()) return Missing(shape, *request.mode);
      modes.push_back(*mode);
    }
    if (choices.empty() || modes != choices[0]) choices.push_back(std::move(modes));
  }
  return choices;
}

}  // namespace thermocline
