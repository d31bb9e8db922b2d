// Runs a chunk in steps and turns the logits of its second half into log-probabilities.
#include "coordinator/cli/scorer.h"

#include <algorithm>

#include "common/util/status_macros.h"
#include "coordinator/cli/perplexity_math.h"

namespace thermocline {

absl::Status Scorer::ScoreChunk(absl::Span<const int32_t> tokens, const OnRow& on_row) {
  const Tokenizer& tokenizer = stepper_->tokenizer();
  const int64_t n_ctx = static_cast<int64_t>(tokens.size());
  const int64_t first = n_ctx / 2, end = n_ctx - 1;  // the last token only is a next one
  std::vector<float> log_probs(tokenizer.n_vocab());
  std::vector<TokenInput> inputs;
  for (int64_t begin = 0; begin < end;) {
    const bool scored = begin >= first;
    const int64_t limit = scored ? std::min(max_logit_rows_, stepper_->batch_size())
                                 : std::min(first - begin, stepper_->batch_size());
    const int64_t n = std::min(limit, end - begin);
    inputs.clear();
    for (int64_t i = begin; i < begin + n; ++i) {
      const bool is_start = i == 0 && tokenizer.add_bos() && tokenizer.bos() >= 0;
      inputs.push_back({.token = is_start ? tokenizer.bos() : tokens[i],
                        .slot = 0,
                        .position = static_cast<int32_t>(i),
                        .wants_logits = scored});
    }
    RETURN_IF_ERROR(stepper_->Run(inputs));
    for (int64_t row = 0; scored && row < n; ++row) {
      LogSoftmax(stepper_->logits(static_cast<int32_t>(row)), tokenizer.n_vocab(),
                 log_probs.data());
      RETURN_IF_ERROR(on_row(begin + row, log_probs.data()));
    }
    begin += n;
  }
  return absl::OkStatus();
}

}  // namespace thermocline
