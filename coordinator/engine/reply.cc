// Token by token: sample, piece, whole characters, stop texts; see reply.h.
#include "coordinator/engine/reply.h"

namespace thermocline {

Reply::Reply(const Request& request, const Tokenizer& tokenizer)
    : tokenizer_(tokenizer),
      max_tokens_(request.max_tokens),
      sampler_(request.sampling),
      stops_(request.stop) {
  for (int32_t token : request.prompt) sampler_.Accept(token);
  if (max_tokens_ == 0) End(v1::FINISH_REASON_LENGTH);
}

absl::StatusOr<v1::GenerateResponse> Reply::Next(const float* logits) {
  return Take(sampler_.Sample(logits, tokenizer_.n_vocab()));
}

absl::StatusOr<v1::GenerateResponse> Reply::NextIs(int32_t best) { return Take({best}); }

absl::StatusOr<v1::GenerateResponse> Reply::Take(const Sampled& sampled) {
  if (sampled.token < 0) {
    return absl::InternalError(
        "the model's output holds no finite number; the file or its activation may be wrong");
  }
  token_ = sampled.token;
  sampler_.Accept(token_);
  ++n_tokens_;
  v1::GenerateResponse message;
  message.set_token(token_);
  if (sampled.logprob.has_value()) message.set_logprob(*sampled.logprob);
  if (tokenizer_.is_end(token_)) {
    End(v1::FINISH_REASON_STOP);
    return message;
  }
  message.set_text(stops_.Push(characters_.Push(tokenizer_.Piece(token_, /*special=*/false))));
  if (stops_.matched()) {
    End(v1::FINISH_REASON_STOP);
  } else if (n_tokens_ == max_tokens_) {
    End(v1::FINISH_REASON_LENGTH);
  }
  return message;
}

v1::GenerateResponse Reply::Last() {
  v1::GenerateResponse message;
  message.set_token(-1);
  message.set_text(stops_.Push(characters_.Flush()) + stops_.Flush());
  if (stops_.matched()) End(v1::FINISH_REASON_STOP);  // completed by the characters just flushed
  message.set_finish_reason(finish_reason_);
  message.mutable_usage()->set_completion_tokens(n_tokens_);
  message.mutable_timings()->set_seed(static_cast<int64_t>(sampler_.seed()));
  return message;
}

}  // namespace thermocline
