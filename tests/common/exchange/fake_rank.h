// Ranks without a model: partial sums and logits that are a known function of rank, step, exchange
// and h, in a form where the order of additions shows in the last bits.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"

namespace thermocline::testing {

struct FakeRank {
  ExchangeShape shape;
  int32_t rank = 0;
  int32_t vocab_begin = 0, vocab_end = 0;
  // Called before each arrival; sleeps, kills, or does nothing.
  std::function<void(uint64_t step, uint32_t exchange)> before_arrival;

  // Called before that, with the exchange that the rank takes part in.
  std::function<void(Exchange& exchange, uint32_t number)> compute;

  // Takes steps until the exchange ends; returns what ended it.
  absl::Status Run(Exchange& exchange) const;
  // One step.
  absl::Status RunStep(Exchange& exchange, const Step& step) const;
};

// Says that it is working for so long.
void WorkFor(std::chrono::milliseconds duration, Exchange& exchange);

// Whether the rank has nothing to add in this exchange.
bool IsEmpty(int32_t rank, uint64_t step, uint32_t exchange);

// The partial of one element, given h there.
float PartialValue(int32_t rank, uint64_t step, uint32_t exchange, int64_t i, float h);

// Element i of the embeddings of a step.
float EmbeddingValue(uint64_t step, int64_t i);

// h after all exchanges of a step, [n_tokens * d_model], added in rank order by one thread.
std::vector<float> ExpectedH(const ExchangeShape& shape, uint64_t step, int64_t n_tokens);

// The logit at column v of row `row`, given the final h.
float LogitValue(const std::vector<float>& h, int32_t row, int32_t v);

// The slice of the vocabulary of a rank: equal shares, in order.
int32_t VocabBegin(const ExchangeShape& shape, int32_t rank);
FakeRank MakeFakeRank(const ExchangeShape& shape, int32_t rank);

// The tokens of a step that wants n_logit_rows rows, for its first tokens.
std::vector<StepToken> MakeTokens(int64_t n_tokens, int32_t n_logit_rows);

}  // namespace thermocline::testing
