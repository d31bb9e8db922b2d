// Runs a text through a model chunk by chunk and yields the log-probabilities of its second halves,
// llama.cpp's way. Statistics are perplexity_math.h.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "coordinator/engine/stepper.h"

namespace thermocline {

class Scorer {
 public:
  // Rows of logits that a step may want (Fleet's max_logit_rows).
  Scorer(Stepper* stepper, int64_t max_logit_rows)
      : stepper_(stepper), max_logit_rows_(max_logit_rows) {}

  // `position`: whose next token is scored; log_probs [n_vocab] f32 at it.
  using OnRow = std::function<absl::Status(int64_t position, const float* log_probs)>;

  // tokens [n_ctx]: one chunk; its first token is replaced by BOS if the model has one put in
  // front. Calls on_row for positions n_ctx / 2 to n_ctx - 2.
  absl::Status ScoreChunk(absl::Span<const int32_t> tokens, const OnRow& on_row);

 private:
  Stepper* stepper_;
  int64_t max_logit_rows_;
};

}  // namespace thermocline
