// The chain of filters and the draw. All sums are f64; the draw is our own inverse of the cumulated
// weights, because the standard library's distributions differ from library to library.
#include "coordinator/engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/exchange/logit_candidate.h"

namespace thermocline {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Best logit first, the lowest id among equals.
bool IsBetter(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

// logits[token] - log(sum of exp(logits)) over finite logits. Terms are f32, right to 1e-7 of the
// largest, and their sum is f64: twice as fast as f64 terms, and the same within the f32 result.
float LogProbability(const float* logits, int64_t n_vocab, int32_t token) {
  const float max = BestOf(logits, n_vocab).logit;
  double sum = 0;
  for (int64_t i = 0; i < n_vocab; ++i) {
    const float below_max = logits[i] - max;
    if (below_max > -40 && below_max <= 0) sum += std::exp(below_max);  // 2^24 less: < 1e-10
  }
  return static_cast<float>(static_cast<double>(logits[token]) - max - std::log(sum));
}

absl::Status OutOfRange(const char* field, const std::string& range, double value) {
  return absl::InvalidArgumentError(fmt::format("{} is {}: it must be {}", field, value, range));
}

}  // namespace

absl::Status SamplingParams::Check() const {
  if (!std::isfinite(temperature)) return OutOfRange("temperature", "a finite number", temperature);
  if (!(top_p >= 0 && top_p < HUGE_VAL)) return OutOfRange("top_p", "0 or more (1: off)", top_p);
  if (!(min_p <= 1)) return OutOfRange("min_p", "at most 1 (0: off)", min_p);
  if (!(repeat_penalty > 0 && repeat_penalty < HUGE_VAL)) {
    return OutOfRange("repeat_penalty", "more than 0 (1: off)", repeat_penalty);
  }
  if (repeat_last_n < -1) {
    return OutOfRange("repeat_last_n", "at least -1 (all tokens)",
                      static_cast<double>(repeat_last_n));
  }
  if (seed < -1) return OutOfRange("seed", "at least -1 (a random one)", static_cast<double>(seed));
  return absl::OkStatus();
}

bool SamplingParams::NeedsOnlyBest() const {
  return temperature <= 0 && !has_penalty() && banned.empty() && !logprobs;
}

Sampler::Sampler(const SamplingParams& params)
    : params_(params),
      seed_(params.seed >= 0 ? static_cast<uint64_t>(params.seed) : std::random_device{}()),
      rng_(seed_) {}

void Sampler::Accept(int32_t token) {
  if (!params_.has_penalty()) return;
  recent_.push_back(token);
  ++recent_counts_[token];
  if (params_.repeat_last_n < 0 || std::ssize(recent_) <= params_.repeat_last_n) return;
  const auto oldest = recent_counts_.find(recent_.front());
  if (--oldest->second == 0) recent_counts_.erase(oldest);
  recent_.pop_front();
}

const float* Sampler::Adjust(const float* logits, int64_t n_vocab) {
  if (recent_counts_.empty() && params_.banned.empty()) return logits;
  adjusted_.assign(logits, logits + n_vocab);
  const float penalty = static_cast<float>(params_.repeat_penalty);
  for (const auto& [token, count] : recent_counts_) {
    if (token < 0 || token >= n_vocab) continue;
    float& logit = adjusted_[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  for (const int32_t token : params_.banned) {
    if (token >= 0 && token < n_vocab) adjusted_[token] = -kInfinity;
  }
  return adjusted_.data();
}

void Sampler::CollectTopK(const float* logits, int64_t n_vocab) {
  candidates_.clear();
  const size_t k = params_.top_k > 0 ? static_cast<size_t>(std::min(params_.top_k, n_vocab)) : 0;
  for (int64_t i = 0; i < n_vocab; ++i) {
    if (!std::isfinite(logits[i])) continue;
    if (k == 0 || candidates_.size() < k) {
      candidates_.emplace_back(logits[i], static_cast<int32_t>(i));
      if (k != 0) std::push_heap(candidates_.begin(), candidates_.end(), IsBetter);
    } else if (logits[i] > candidates_.front().first) {  // the worst of the best k
      std::pop_heap(candidates_.begin(), candidates_.end(), IsBetter);
      candidates_.back() = {logits[i], static_cast<int32_t>(i)};
      std::push_heap(candidates_.begin(), candidates_.end(), IsBetter);
    }
  }
}

void Sampler::KeepTopPAndMinP() {
  const double max = std::min_element(candidates_.begin(), candidates_.end(), IsBetter)->first;
  const auto weight = [max](const auto& candidate) { return std::exp(candidate.first - max); };
  double total = 0;  // of the top k, also of those that min-p removes
  if (params_.top_p < 1) {
    for (const auto& candidate : candidates_) total += weight(candidate);
  }
  // Both filters keep a front part of the order by logit, so they may come in either order, and the
  // cheap one leaves less to sort.
  if (params_.min_p > 0) {
    const double least = max + std::log(params_.min_p);
    std::erase_if(candidates_, [least](const auto& candidate) { return candidate.first < least; });
  }
  if (params_.top_p >= 1) return;
  size_t n_kept = 0, n_sorted = 0;
  for (double sum = 0; n_kept < candidates_.size();) {
    if (n_kept == n_sorted) {
      n_sorted = std::min(candidates_.size(), std::max<size_t>(64, 4 * n_sorted));
      const auto begin = candidates_.begin() + static_cast<ptrdiff_t>(n_kept);
      const auto end = candidates_.begin() + static_cast<ptrdiff_t>(n_sorted);
      std::nth_element(begin, end - 1, candidates_.end(), IsBetter);
      std::sort(begin, end, IsBetter);
    }
    sum += weight(candidates_[n_kept++]);
    if (sum >= params_.top_p * total) break;
  }
  candidates_.resize(n_kept);
}

int32_t Sampler::Draw() {
  const double max = std::min_element(candidates_.begin(), candidates_.end(), IsBetter)->first;
  const auto weight = [&](const auto& candidate) {
    return std::exp((candidate.first - max) / params_.temperature);
  };
  double total = 0;
  for (const auto& candidate : candidates_) total += weight(candidate);
  double left = static_cast<double>(rng_() >> 11) * 0x1p-53 * total;
  int32_t token = -1;
  for (const auto& candidate : candidates_) {
    const double w = weight(candidate);
    if (w == 0) continue;
    token = candidate.second;  // the last one with a weight, should rounding leave a rest
    left -= w;
    if (left < 0) break;
  }
  return token;
}

Sampled Sampler::Sample(const float* logits, int64_t n_vocab) {
  const float* adjusted = Adjust(logits, n_vocab);
  int32_t token = -1;
  if (params_.temperature <= 0) {
    token = BestOf(adjusted, n_vocab).token;
  } else {
    CollectTopK(adjusted, n_vocab);
    if (!candidates_.empty()) {
      KeepTopPAndMinP();
      token = Draw();
    }
  }
  if (token < 0 || !params_.logprobs) return {token};
  return {token, LogProbability(logits, n_vocab, token)};
}

}  // namespace thermocline
