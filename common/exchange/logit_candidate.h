// The best logit of a part of the vocabulary: all that greedy sampling needs of that part. What is
// best is said here once, for ranks, the coordinator and the sampler.
#pragma once

#include <cstdint>
#include <limits>

namespace thermocline {

// Plain data: it lies in the segment and travels in frames as it is.
struct LogitCandidate {
  float logit = -std::numeric_limits<float>::infinity();
  int32_t token = -1;  // in the whole vocabulary; of no meaning where the logit is not finite
};

inline bool IsFinite(float logit) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return logit > -kInfinity && logit < kInfinity;  // false for NaN
}

// Finite before any other, then the larger logit, then the lower token.
inline bool Beats(const LogitCandidate& a, const LogitCandidate& b) {
  if (!IsFinite(a.logit) || !IsFinite(b.logit)) return IsFinite(a.logit) && !IsFinite(b.logit);
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// Of logits [n], the first of which is first_token's. Token -1 when none is finite.
inline LogitCandidate BestOf(const float* logits, int64_t n, int64_t first_token = 0) {
  LogitCandidate best;
  for (int64_t i = 0; i < n; ++i) {
    if (logits[i] > best.logit && IsFinite(logits[i])) {
      best = {logits[i], static_cast<int32_t>(first_token + i)};
    }
  }
  return best;
}

}  // namespace thermocline
