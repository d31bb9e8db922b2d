// Ranges, places, rows of logits.
#include "common/worker/check_step.h"

#include <algorithm>
#include <set>
#include <utility>

#include "fmt/format.h"

namespace thermocline {

absl::Status CheckStep(const Step& step, const std::vector<StepToken>& tokens,
                       const StepLimits& limits) {
  const int64_t n_rows = step.n_logit_rows;
  if (step.n_tokens() < 1 || step.n_tokens() > limits.max_tokens || n_rows < 0 ||
      n_rows > limits.max_logit_rows) {
    return absl::InvalidArgumentError(fmt::format(
        "step {} has {} tokens and {} logit rows; at most {} and {} are possible", step.number,
        step.n_tokens(), n_rows, limits.max_tokens, limits.max_logit_rows));
  }
  std::vector<bool> row_seen(n_rows, false);
  std::set<std::pair<int32_t, int32_t>> places;  // two tokens would write the same place at once
  for (const StepToken& token : tokens) {
    const bool is_row_bad =
        token.logit_row >= n_rows || (token.logit_row >= 0 && row_seen[token.logit_row]);
    if (token.slot < 0 || token.slot >= limits.n_slots || token.position < 0 ||
        token.position >= limits.n_ctx || is_row_bad || token.mode < TokenMode::kAsPlanned ||
        token.mode > TokenMode::kExact || !places.emplace(token.slot, token.position).second) {
      return absl::InvalidArgumentError(
          fmt::format("step {}: slot {}, position {}, logit row {} is not possible", step.number,
                      token.slot, token.position, token.logit_row));
    }
    if (token.logit_row >= 0) row_seen[token.logit_row] = true;
  }
  if (std::find(row_seen.begin(), row_seen.end(), false) != row_seen.end()) {
    return absl::InvalidArgumentError(
        fmt::format("step {}: a logit row belongs to no token", step.number));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
