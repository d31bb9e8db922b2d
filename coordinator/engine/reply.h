// One answer as it grows: samples tokens from logits, turns them into text, knows when it ends.
// Runs no steps.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model/tokenizer.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/sampler.h"
#include "coordinator/engine/stop_matcher.h"
#include "proto/inference.pb.h"

namespace thermocline {

class Reply {
 public:
  Reply(const Request& request, const Tokenizer& tokenizer);

  // Samples the next token and returns its message. Internal when no logit is finite.
  absl::StatusOr<v1::GenerateResponse> Next(const float* logits);  // [n_vocab]
  // The same for a request that needs only the best token (-1: no logit is finite).
  absl::StatusOr<v1::GenerateResponse> NextIs(int32_t best);
  void End(v1::FinishReason reason) { finish_reason_ = reason; }
  bool ended() const { return finish_reason_ != v1::FINISH_REASON_UNSPECIFIED; }
  // The last message: text still held back, finish reason, number of tokens, seed.
  v1::GenerateResponse Last();

  int64_t n_tokens() const { return n_tokens_; }
  int32_t token() const { return token_; }  // the last one

 private:
  absl::StatusOr<v1::GenerateResponse> Take(const Sampled& sampled);

  const Tokenizer& tokenizer_;
  const int64_t max_tokens_;
  Sampler sampler_;
  Utf8Stream characters_;
  StopMatcher stops_;
  int64_t n_tokens_ = 0;
  int32_t token_ = -1;
  v1::FinishReason finish_reason_ = v1::FINISH_REASON_UNSPECIFIED;
};

}  // namespace thermocline
