// How many tokens of a prompt go into the next step: so few that a caller who cancels does not wait
// long for its end, and so many that the weights are read seldom. Sums don't depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace thermocline {

class PrefillPace {
 public:
  int64_t n_tokens() const { return n_tokens_; }

  // A step of that many tokens took so long.
  void Took(int64_t n_tokens, double seconds) {
    if (seconds > kLong) {
      n_tokens_ = std::max(kLeast, static_cast<int64_t>(n_tokens * kLong / seconds));
    } else if (seconds < kLong / 2 && n_tokens >= n_tokens_) {  // the end of a prompt tells nothing
      n_tokens_ = 2 * n_tokens;
    }
  }

 private:
  static constexpr double kLong = 0.5;  // s
  // Fewer don't make a step much shorter: what it takes to read the weights once stays.
  static constexpr int64_t kLeast = 16;
  int64_t n_tokens_ = 32;
};

}  // namespace thermocline
