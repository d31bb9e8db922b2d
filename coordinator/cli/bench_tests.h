// The two tests of bench on a model that runs: prefill and decode, timed. No fleet is started here.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/engine/stepper.h"

namespace thermocline {

class BenchTests {
 public:
  // Tokens are random but the same in every run.
  // `between` is called before each repeat and after the last; its error ends the test.
  BenchTests(Stepper* stepper, std::function<absl::Status()> between);

  // Tokens a second of each repeat, after one that does not count. Cancelled when a signal comes.
  // Prefill: n tokens in steps of the batch size, the last one's logits wanted.
  absl::StatusOr<std::vector<double>> Prefill(int64_t n_tokens, int64_t n_repeats);
  // Decode: n steps of one token from an empty context, logits wanted each time.
  absl::StatusOr<std::vector<double>> Decode(int64_t n_tokens, int64_t n_repeats);

 private:
  // Runs n_tokens from position 0 on; returns seconds.
  absl::StatusOr<double> Run(int64_t n_tokens, int64_t step_size);
  absl::StatusOr<std::vector<double>> Repeat(int64_t n_tokens, int64_t step_size, int64_t n_warm_up,
                                             int64_t n_repeats);
  int32_t Token(int64_t position) const { return tokens_[position % tokens_.size()]; }

  Stepper* stepper_;
  std::function<absl::Status()> between_;
  std::vector<int32_t> tokens_;
};

}  // namespace thermocline
