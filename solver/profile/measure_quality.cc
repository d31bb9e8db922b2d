// One fleet, two slots: the tokens of one leave nothing out.
#include "solver/profile/measure_quality.h"

#include <algorithm>
#include <cmath>

#include "common/util/status_macros.h"
#include "coordinator/cli/perplexity_math.h"

namespace thermocline {
namespace {

constexpr int64_t kStepTokens = 128;  // all of them want logits

// Logarithms of probabilities after each token, [n_tokens, n_vocab].
absl::Status Run(Fleet* fleet, const Window& window, int64_t begin, int64_t end, int32_t slot,
                 TokenMode mode, std::vector<float>* log_probs) {
  std::vector<TokenInput> step;
  for (int64_t i = begin; i < end; ++i) {
    step.push_back({window[i], slot, static_cast<int32_t>(i), /*wants_logits=*/true, mode});
  }
  RETURN_IF_ERROR(fleet->Run(step));
  const int64_t n_vocab = fleet->model().config().n_vocab;
  log_probs->resize(step.size() * n_vocab);
  for (size_t i = 0; i < step.size(); ++i) {
    LogSoftmax(fleet->logits(static_cast<int32_t>(i)), n_vocab, log_probs->data() + i * n_vocab);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<double> MeasureKl(FleetOptions options, const std::vector<Window>& windows,
                                 const std::atomic<bool>* cancelled,
                                 const std::function<bool(double)>& go_on) {
  options.n_slots = 2;
  options.batch_size = options.max_logit_rows = std::min(kStepTokens, options.n_ctx);
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet,
                   Fleet::Start(options, /*on_progress=*/nullptr, cancelled));
  const int64_t n_vocab = fleet->model().config().n_vocab;
  int64_t n_tokens = 0, n_done = 0;
  for (const Window& window : windows) n_tokens += std::ssize(window);
  Divergence divergence;
  std::vector<float> off, planned;
  for (const Window& window : windows) {
    for (int64_t begin = 0; begin < std::ssize(window); begin += options.batch_size) {
      const int64_t end = std::min(begin + options.batch_size, std::ssize(window));
      RETURN_IF_ERROR(Run(fleet.get(), window, begin, end, 0, TokenMode::kOff, &off));
      RETURN_IF_ERROR(Run(fleet.get(), window, begin, end, 1, TokenMode::kAsPlanned, &planned));
      for (int64_t i = begin; i < std::min(end, std::ssize(window) - 1); ++i) {
        const int64_t at = (i - begin) * n_vocab;
        divergence.Add(off.data() + at, planned.data() + at, n_vocab, window[i + 1]);
      }
      n_done += end - begin;
      if (!go_on(static_cast<double>(n_done) / static_cast<double>(n_tokens))) {
        return absl::CancelledError("stopped by a signal");
      }
    }
  }
  const double kl = divergence.MeanKl().value;
  if (!std::isfinite(kl)) return absl::DataLossError("the model's logits are not finite");
  return std::max(kl, 0.0);
}

}  // namespace thermocline
