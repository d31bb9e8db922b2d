// The numbers of fake ranks, and the sums that must come of them.
#include "tests/common/exchange/fake_rank.h"

#include <algorithm>
#include <thread>

#include "common/util/status_macros.h"

namespace thermocline::testing {
namespace {

// Spread over [-1, 1), different for different arguments.
float Noise(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  uint64_t x = a * 0x9e3779b97f4a7c15 ^ b * 0xc2b2ae3d27d4eb4f ^ c * 0x165667b19e3779f9 ^
               d * 0x27d4eb2f165667c5;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9;
  x ^= x >> 32;
  return static_cast<float>(static_cast<int64_t>(x)) * 0x1p-63f;
}

}  // namespace

void WorkFor(std::chrono::milliseconds duration, Exchange& exchange) {
  const auto end = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < end) {
    exchange.Working();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

bool IsEmpty(int32_t rank, uint64_t step, uint32_t exchange) {
  return (static_cast<uint64_t>(rank) + step + exchange) % 4 == 3;
}

float PartialValue(int32_t rank, uint64_t step, uint32_t exchange, int64_t i, float h) {
  // Negative feedback keeps h near 1; magnitudes differ by rank, so that sums round differently in
  // another order.
  return Noise(static_cast<uint64_t>(rank) + 1, step, exchange, static_cast<uint64_t>(i)) *
             static_cast<float>(1 << (3 * (rank % 4))) -
         0.25f * h;
}

float EmbeddingValue(uint64_t step, int64_t i) {
  return Noise(0, step, 0, static_cast<uint64_t>(i));
}

std::vector<float> ExpectedH(const ExchangeShape& shape, uint64_t step, int64_t n_tokens) {
  std::vector<float> h(n_tokens * shape.d_model);
  for (size_t i = 0; i < h.size(); ++i) {
    h[i] = EmbeddingValue(step, i);
    for (uint32_t exchange = 0; exchange < shape.ExchangesPerStep(); ++exchange) {
      const float before = h[i];
      for (int32_t rank = 0; rank < shape.n_ranks; ++rank) {
        if (!IsEmpty(rank, step, exchange)) {
          h[i] += PartialValue(rank, step, exchange, i, before);
        }
      }
    }
  }
  return h;
}

float LogitValue(const std::vector<float>& h, int32_t row, int32_t v) {
  return h[(static_cast<size_t>(row) * 7 + v) % h.size()] + static_cast<float>(v);
}

int32_t VocabBegin(const ExchangeShape& shape, int32_t rank) {
  return static_cast<int32_t>(int64_t{shape.n_vocab} * rank / shape.n_ranks);
}

FakeRank MakeFakeRank(const ExchangeShape& shape, int32_t rank) {
  FakeRank fake;
  fake.shape = shape;
  fake.rank = rank;
  fake.vocab_begin = VocabBegin(shape, rank);
  fake.vocab_end = VocabBegin(shape, rank + 1);
  return fake;
}

std::vector<StepToken> MakeTokens(int64_t n_tokens, int32_t n_logit_rows) {
  std::vector<StepToken> tokens;
  for (int32_t t = 0; t < n_tokens; ++t) {
    tokens.push_back({.slot = 0, .position = t, .logit_row = t < n_logit_rows ? t : -1});
  }
  return tokens;
}

absl::Status FakeRank::Run(Exchange& exchange) const {
  while (true) {
    ASSIGN_OR_RETURN(const Step step, exchange.NextStep());
    RETURN_IF_ERROR(RunStep(exchange, step));
  }
}

absl::Status FakeRank::RunStep(Exchange& exchange, const Step& step) const {
  const int64_t n = step.n_tokens() * shape.d_model;
  std::vector<float> h(step.x, step.x + n);
  for (uint32_t e = 0; e < shape.ExchangesPerStep(); ++e) {
    float* partial = exchange.Partial();
    if (IsEmpty(rank, step.number, e)) {
      partial[0] = 1e30f;  // must not be read
      exchange.NoPartial();
    } else {
      for (int64_t i = 0; i < n; ++i) partial[i] = PartialValue(rank, step.number, e, i, h[i]);
    }
    if (compute) compute(exchange, e);
    if (before_arrival) before_arrival(step.number, e);
    RETURN_IF_ERROR(exchange.Arrive());
    if (exchange.sliced()) {
      const int64_t begin = exchange.slice_begin(), end = exchange.slice_end();
      const int64_t middle = begin + (end - begin) / 3;
      exchange.AddSlice(h.data(), begin, middle);
      exchange.AddSlice(h.data(), middle, end);
      RETURN_IF_ERROR(exchange.ArriveSlices());
    }
    exchange.Collect(h.data(), n / 3, n);
    exchange.Collect(h.data(), 0, n / 3);
  }
  for (int32_t row = 0; row < step.n_logit_rows; ++row) {
    std::vector<float> logits;
    for (int32_t v = vocab_begin; v < vocab_end; ++v) logits.push_back(LogitValue(h, row, v));
    if (!step.wants_best_only) {
      std::copy(logits.begin(), logits.end(), exchange.Logits(row));
    } else if (!logits.empty()) {
      exchange.Candidates()[row] = BestOf(logits.data(), std::ssize(logits), vocab_begin);
    }
  }
  return exchange.FinishStep();
}

}  // namespace thermocline::testing
