// Picks the next token from logits, as llama.cpp's users know it: repeat penalty, top-k, top-p,
// min-p, temperature, then a draw. Knows nothing of text.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace thermocline {

struct SamplingParams {
  double temperature = 0.8;  // <= 0: the argmax, lowest id first among equals
  int64_t top_k = 40;        // <= 0: all
  double top_p = 0.95;       // >= 1: off
  double min_p = 0.05;       // <= 0: off
  double repeat_penalty = 1.0;
  int64_t repeat_last_n = 64;   // tokens looked back on, prompt included; -1: all, 0: off
  int64_t seed = -1;            // -1: a random one
  std::vector<int32_t> banned;  // never chosen (ignore_eos)
  bool logprobs = false;        // Sampled::logprob is wanted

  absl::Status Check() const;  // InvalidArgument names the field and its range
  // Whether what Sample returns is BestOf the logits and nothing else of them matters.
  bool NeedsOnlyBest() const;
  bool has_penalty() const { return repeat_penalty != 1 && repeat_last_n != 0; }
};

struct Sampled {
  int32_t token;
  // Natural log of its probability under softmax(logits), before any filter; if wanted.
  std::optional<float> logprob = std::nullopt;
};

class Sampler {
 public:
  explicit Sampler(const SamplingParams& params);
  // Tokens of the prompt count for the repeat penalty, too.
  void Accept(int32_t token);
  // logits [n_vocab]; not changed. Does not Accept by itself. Non-finite logits: -inf is never
  // chosen; when none is finite, the token is -1.
  Sampled Sample(const float* logits, int64_t n_vocab);
  uint64_t seed() const { return seed_; }  // the one in use

 private:
  // Repeat penalty and bans; `logits` itself when there is neither.
  const float* Adjust(const float* logits, int64_t n_vocab);
  void CollectTopK(const float* logits, int64_t n_vocab);
  void KeepTopPAndMinP();
  int32_t Draw();  // one of the candidates, by their weights at the temperature

  SamplingParams params_;
  uint64_t seed_;
  std::mt19937_64 rng_;
  std::deque<int32_t> recent_;  // of the last repeat_last_n, while there is a penalty
  std::unordered_map<int32_t, int64_t> recent_counts_;  // token -> times in recent_
  std::vector<float> adjusted_;                         // [n_vocab], kept to save allocations
  std::vector<std::pair<float, int32_t>> candidates_;   // logit, token; the same
};

}  // namespace thermocline
