// A step's descriptor comes from another process: nothing in it is used as an index before this.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"

namespace thermocline {

struct StepLimits {
  int64_t max_tokens;
  int64_t max_logit_rows;
  int64_t n_slots;
  int64_t n_ctx;
};

// tokens: the step's, copied, so that what was checked can't change any more. InvalidArgument names
// what is out of range, two tokens of one place, a row of logits that no token or two want.
absl::Status CheckStep(const Step& step, const std::vector<StepToken>& tokens,
                       const StepLimits& limits);

}  // namespace thermocline
