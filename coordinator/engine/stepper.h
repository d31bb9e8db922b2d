// What Inference needs of a fleet: a model that runs steps. Fleet is the real one; tests bring
// their own, without processes.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/exchange/exchange.h"
#include "common/model/tokenizer.h"
#include "proto/inference.pb.h"

namespace thermocline {

struct TokenInput {
  int32_t token;
  int32_t slot;
  int32_t position;
  bool wants_logits;
  TokenMode mode = TokenMode::kAsPlanned;
  bool needs_only_best = false;  // of its logits: best() will be asked, not logits()
};

class Stepper {
 public:
  virtual ~Stepper() = default;

  virtual const Tokenizer& tokenizer() const = 0;
  virtual v1::Model Describe() const = 0;  // what clients are told of the model
  // The same of its ranks; from any thread, also while a step runs.
  virtual absl::StatusOr<v1::StatsResponse> DescribeRanks() = 0;
  virtual int64_t n_ctx() const = 0;       // positions of a slot
  virtual int64_t batch_size() const = 0;  // tokens of a step, at most

  // One step: at most batch_size tokens (rows of logits are numbered in the order of the tokens
  // that want them). What a slot held at a position and after it is replaced. Unavailable when a
  // worker is lost or the fleet was given up before; the message names the worker. Not to be called
  // from two threads at a time.
  virtual absl::Status Run(absl::Span<const TokenInput> tokens) = 0;
  // Of the last step, [n_vocab]; not of a token that needs only the best.
  virtual const float* logits(int32_t row) const = 0;
  // The token with the largest finite logit, the lowest such one; -1 when none is finite.
  virtual int32_t best(int32_t row) const = 0;
  virtual absl::Status state() const = 0;  // OK while steps can run; else why not
};

}  // namespace thermocline
