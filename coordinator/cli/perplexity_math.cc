// Perplexity and divergence from log-probabilities. llama.cpp's tools/perplexity prints the same
// figures under the same names.
#include "coordinator/cli/perplexity_math.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace thermocline {

void LogSoftmax(const float* logits, int64_t n_vocab, float* log_probs) {
  const double best = *std::max_element(logits, logits + n_vocab);
  double sum = 0;
  for (int64_t i = 0; i < n_vocab; ++i) sum += std::exp(logits[i] - best);
  const double log_sum = best + std::log(sum);
  for (int64_t i = 0; i < n_vocab; ++i) log_probs[i] = static_cast<float>(logits[i] - log_sum);
}

void MeanOf::Add(double x) {
  ++n_;
  const double difference = x - mean_;
  mean_ += difference / static_cast<double>(n_);
  squares_ += difference * (x - mean_);
}

Estimate MeanOf::Mean() const {
  if (n_ < 2) return {mean_, 0};
  const double n = static_cast<double>(n_);
  return {mean_, std::sqrt(squares_ / n / (n - 1))};
}

Estimate Perplexity(const MeanOf& nll) {
  const Estimate mean = nll.Mean();
  const double perplexity = std::exp(mean.value);
  return {perplexity, perplexity * mean.error};
}

double Percentile(const std::vector<float>& sorted, double share) {
  const double place = std::clamp(share, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = place - static_cast<double>(below);
  return (1 - part) * sorted[below] + part * sorted[above];
}

void Divergence::Add(const float* base, const float* log_probs, int64_t n_vocab, int32_t next) {
  double kl = 0;
  for (int64_t i = 0; i < n_vocab; ++i) {
    // A probability of 0 in the base adds nothing, whatever the other says.
    if (std::isfinite(base[i])) {
      kl += std::exp(static_cast<double>(base[i])) * (static_cast<double>(base[i]) - log_probs[i]);
    }
  }
  kl_.Add(kl);
  kl_samples_.push_back(static_cast<float>(kl));
  nll_.Add(-log_probs[next]);
  base_nll_.Add(-base[next]);
  log_ratio_.Add(static_cast<double>(base[next]) - log_probs[next]);
  const auto top = [n_vocab](const float* p) { return std::max_element(p, p + n_vocab) - p; };
  n_same_top_ += top(base) == top(log_probs);
}

Estimate Divergence::TopAgreement() const {
  const double n = static_cast<double>(kl_.n());
  const double share = n == 0 ? 0 : static_cast<double>(n_same_top_) / n;
  return {share, n < 2 ? 0 : std::sqrt(share * (1 - share) / (n - 1))};
}

std::string Divergence::Report() const {
  if (n() == 0) return "";
  std::vector<float> sorted = kl_samples_;
  std::sort(sorted.begin(), sorted.end());
  const auto line = [](const char* what, const Estimate& estimate) {
    return fmt::format("{:<26}: {:11.6f} +/- {:10.6f}\n", what, estimate.value, estimate.error);
  };
  const auto plain = [](const char* what, double value) {
    return fmt::format("{:<26}: {:11.6f}\n", what, value);
  };
  const Estimate log_ratio = LogRatio(), top = TopAgreement();
  const double ratio = std::exp(log_ratio.value);
  return "====== Perplexity statistics ======\n" + line("Mean PPL(Q)", Perplexity(nll_)) +
         line("Mean PPL(base)", Perplexity(base_nll_)) +
         line("Mean ln(PPL(Q)/PPL(base))", log_ratio) +
         line("Mean PPL(Q)/PPL(base)", {ratio, ratio * log_ratio.error}) +
         "\n====== KL divergence statistics ======\n" + line("Mean KLD", MeanKl()) +
         plain("Maximum KLD", sorted.back()) + plain("99.9% KLD", Percentile(sorted, 0.999)) +
         plain("99.0% KLD", Percentile(sorted, 0.99)) +
         plain("95.0% KLD", Percentile(sorted, 0.95)) +
         plain("Median KLD", Percentile(sorted, 0.5)) + plain("Minimum KLD", sorted.front()) +
         "\n====== Token probability statistics ======\n" +
         fmt::format("{:<26}: {:.3f} +/- {:.3f} %\n", "Same top p", top.value * 100,
                     top.error * 100);
}

}  // namespace thermocline
