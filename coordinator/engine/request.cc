// Checks of a GenerateRequest and its prompt; see request.h.
#include "coordinator/engine/request.h"

#include <fmt/format.h>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

SamplingParams ReadSampling(const v1::Sampling& message) {
  SamplingParams params;
  if (message.has_temperature()) params.temperature = message.temperature();
  if (message.has_top_k()) params.top_k = message.top_k();
  if (message.has_top_p()) params.top_p = message.top_p();
  if (message.has_min_p()) params.min_p = message.min_p();
  if (message.has_repeat_penalty()) params.repeat_penalty = message.repeat_penalty();
  if (message.has_repeat_last_n()) params.repeat_last_n = message.repeat_last_n();
  if (message.has_seed()) params.seed = message.seed();
  return params;
}

absl::StatusOr<TokenMode> ReadMode(v1::Sparsity sparsity) {
  switch (sparsity) {
    case v1::SPARSITY_AS_PLANNED:
      return TokenMode::kAsPlanned;
    case v1::SPARSITY_OFF:
      return TokenMode::kOff;
    case v1::SPARSITY_EXACT:
      return TokenMode::kExact;
    default:
      return absl::InvalidArgumentError(fmt::format(
          "sparsity is {}; it must be 0 (as planned), 1 (off) or 2 (exact)", int{sparsity}));
  }
}

absl::StatusOr<std::vector<int32_t>> ReadPrompt(const v1::GenerateRequest& message,
                                                const Tokenizer& tokenizer) {
  std::vector<int32_t> prompt;
  if (message.has_tokens()) {
    prompt.assign(message.tokens().ids().begin(), message.tokens().ids().end());
    RETURN_IF_ERROR(CheckTokens(prompt, tokenizer));
  } else {
    prompt = tokenizer.Encode(message.text(), /*add_special=*/true, /*parse_special=*/true);
  }
  if (prompt.empty()) {
    if (tokenizer.bos() < 0) {
      return absl::InvalidArgumentError(
          "the prompt is empty and this model has no BOS token to start from; give a prompt");
    }
    prompt.push_back(tokenizer.bos());
  }
  return prompt;
}

}  // namespace

absl::Status CheckTokens(const std::vector<int32_t>& tokens, const Tokenizer& tokenizer) {
  for (int32_t token : tokens) {
    if (token < 0 || token >= tokenizer.n_vocab()) {
      return absl::InvalidArgumentError(fmt::format(
          "token {} is not one of the model's: ids are 0 to {}", token, tokenizer.n_vocab() - 1));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Request> ReadRequest(const v1::GenerateRequest& message, const Tokenizer& tokenizer,
                                    int64_t n_ctx) {
  Request request;
  if (message.has_max_tokens()) request.max_tokens = message.max_tokens();
  if (request.max_tokens < kUntilContext) {
    return absl::InvalidArgumentError(
        fmt::format("max_tokens is {}; it must be -2 (until the context is full), -1 (until the "
                    "text ends) or a count",
                    request.max_tokens));
  }
  request.stop.assign(message.stop().begin(), message.stop().end());
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return absl::InvalidArgumentError("a stop text is empty; leave it out");
  }
  ASSIGN_OR_RETURN(request.mode, ReadMode(message.sparsity()));
  request.sampling = ReadSampling(message.sampling());
  request.sampling.logprobs = message.logprobs();
  if (message.ignore_eos()) {
    for (int32_t id = 0; id < tokenizer.n_vocab(); ++id) {
      if (tokenizer.is_end(id)) request.sampling.banned.push_back(id);
    }
  }
  RETURN_IF_ERROR(request.sampling.Check());
  ASSIGN_OR_RETURN(request.prompt, ReadPrompt(message, tokenizer));
  if (static_cast<int64_t>(request.prompt.size()) > n_ctx) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt has {} tokens, but the context holds {}; shorten it or raise "
                    "--ctx-size",
                    request.prompt.size(), n_ctx));
  }
  return request;
}

}  // namespace thermocline
