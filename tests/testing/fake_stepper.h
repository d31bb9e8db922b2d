// A model without a fleet: a byte-per-token vocabulary and a stepper that always wants to continue
// one given text. What it answers depends on what its cache holds, as a real model's answer does.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/engine/stepper.h"

namespace thermocline::testing {

// Token 1 is BOS, 2 is EOS, 3 + b is the byte b.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool has_bos = true);
  std::vector<int32_t> Encode(std::string_view text, bool add_special,
                              bool parse_special) const override;
  std::string Piece(int32_t id, bool special) const override;
  std::string Decode(const std::vector<int32_t>& ids, bool special) const override;
};

class FakeStepper : public Stepper {
 public:
  // After BOS and any start of `text` the most likely token (a logit of 20) is the next byte of it,
  // after all of it EOS; after anything else '?'. Next is '.' (10); all others are 0.
  FakeStepper(std::string text, int64_t n_ctx, int64_t batch_size, bool has_bos = true);

  const Tokenizer& tokenizer() const override { return tokenizer_; }
  v1::Model Describe() const override;
  absl::StatusOr<v1::StatsResponse> DescribeRanks() override { return state(); }
  int64_t n_ctx() const override { return n_ctx_; }
  int64_t batch_size() const override { return batch_size_; }
  absl::Status Run(absl::Span<const TokenInput> tokens) override;
  const float* logits(int32_t row) const override { return rows_[row].data(); }
  int32_t best(int32_t row) const override {
    return BestOf(rows_[row].data(), tokenizer_.n_vocab()).token;
  }
  absl::Status state() const override {
    std::lock_guard lock(mutex_);
    return state_;
  }
  void SetState(absl::Status state) {
    std::lock_guard lock(mutex_);
    state_ = std::move(state);
  }

  std::function<absl::Status()> before_step = [] { return absl::OkStatus(); };
  std::vector<int64_t> step_sizes;     // n_tokens of each step so far
  std::vector<TokenMode> modes;        // of each token so far
  std::vector<bool> needed_only_best;  // of each row of logits so far
  bool logits_are_nan = false;

 private:
  void AddRow();

  mutable std::mutex mutex_;
  absl::Status state_;
  ByteTokenizer tokenizer_;
  std::vector<int32_t> wanted_;  // BOS, the text, EOS
  int64_t n_ctx_, batch_size_;
  std::vector<int32_t> cache_;
  std::vector<std::vector<float>> rows_;  // of the last step, each [n_vocab]
};

}  // namespace thermocline::testing
