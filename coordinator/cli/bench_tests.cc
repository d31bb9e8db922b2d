// Times runs of steps, after one that warms up.
#include "coordinator/cli/bench_tests.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "common/util/status_macros.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

constexpr size_t kDistinctTokens = 4096;
constexpr uint32_t kSeed = 1;
constexpr int64_t kWarmUpSteps = 8;  // of decode: caches, page tables, the CPU's clock

}  // namespace

BenchTests::BenchTests(Stepper* stepper, std::function<absl::Status()> between)
    : stepper_(stepper), between_(std::move(between)), tokens_(kDistinctTokens) {
  std::mt19937 random(kSeed);
  const uint32_t n_vocab = static_cast<uint32_t>(stepper->tokenizer().n_vocab());
  for (int32_t& token : tokens_) token = static_cast<int32_t>(random() % n_vocab);
}

absl::StatusOr<double> BenchTests::Run(int64_t n_tokens, int64_t step_size) {
  std::vector<TokenInput> inputs;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t begin = 0; begin < n_tokens; begin += step_size) {
    if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
    inputs.clear();
    for (int64_t i = begin; i < std::min(begin + step_size, n_tokens); ++i) {
      inputs.push_back({.token = Token(i),
                        .slot = 0,
                        .position = static_cast<int32_t>(i),
                        .wants_logits = step_size == 1 || i + 1 == n_tokens});
    }
    RETURN_IF_ERROR(stepper_->Run(inputs));
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::StatusOr<std::vector<double>> BenchTests::Repeat(int64_t n_tokens, int64_t step_size,
                                                       int64_t n_warm_up, int64_t n_repeats) {
  RETURN_IF_ERROR(Run(n_warm_up, step_size).status());
  std::vector<double> samples;
  for (int64_t i = 0; i < n_repeats; ++i) {
    RETURN_IF_ERROR(between_());
    ASSIGN_OR_RETURN(const double seconds, Run(n_tokens, step_size));
    samples.push_back(static_cast<double>(n_tokens) / seconds);
  }
  RETURN_IF_ERROR(between_());
  return samples;
}

absl::StatusOr<std::vector<double>> BenchTests::Prefill(int64_t n_tokens, int64_t n_repeats) {
  return Repeat(n_tokens, stepper_->batch_size(), n_tokens, n_repeats);
}

absl::StatusOr<std::vector<double>> BenchTests::Decode(int64_t n_tokens, int64_t n_repeats) {
  return Repeat(n_tokens, 1, std::min(n_tokens, kWarmUpSteps), n_repeats);
}

}  // namespace thermocline
