// A request as the engine runs it: prompt tokens and checked parameters, made from the public API's
// message. No queue, no steps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "common/model/tokenizer.h"
#include "coordinator/engine/sampler.h"
#include "proto/inference.pb.h"

namespace thermocline {

// Special values of max_tokens.
inline constexpr int64_t kUntilEnd = -1;      // the context must not become full before
inline constexpr int64_t kUntilContext = -2;  // the context may become full

struct Request {
  std::vector<int32_t> prompt;  // never empty, fits the context
  SamplingParams sampling;
  int64_t max_tokens = kUntilEnd;
  std::vector<std::string> stop;
  TokenMode mode = TokenMode::kAsPlanned;
};

// InvalidArgument: a parameter out of range, a token that the model does not have, a prompt longer
// than n_ctx, an empty one where the model has no BOS.
absl::StatusOr<Request> ReadRequest(const v1::GenerateRequest& message, const Tokenizer& tokenizer,
                                    int64_t n_ctx);

// InvalidArgument names the first id that is not one of the vocabulary.
absl::Status CheckTokens(const std::vector<int32_t>& tokens, const Tokenizer& tokenizer);

}  // namespace thermocline
