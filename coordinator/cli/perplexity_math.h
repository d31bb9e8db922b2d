// Statistics of a model on a text: perplexity, and how far it is from a base model, as llama.cpp
// computes them. Pure numbers: no model, no files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace thermocline {

// Natural logarithms of the probabilities that logits [n_vocab] stand for; f32 rounded from f64.
void LogSoftmax(const float* logits, int64_t n_vocab, float* log_probs);

struct Estimate {
  double value;
  double error;  // one standard deviation
};

// Mean of samples and its standard error, sqrt(variance / (n - 1)) with the variance over n.
class MeanOf {
 public:
  void Add(double x);
  int64_t n() const { return n_; }
  Estimate Mean() const;  // error 0 for fewer than two samples

 private:
  int64_t n_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // of differences from the mean, summed (Welford)
};

// exp of a mean of negative log-likelihoods, with the error carried through.
Estimate Perplexity(const MeanOf& nll);

// The share of samples at or below which the value lies: linear between the two nearest samples.
// `sorted` is ascending and not empty.
double Percentile(const std::vector<float>& sorted, double share);

// One model against a base, token by token.
class Divergence {
 public:
  // base, log_probs [n_vocab] of the same position; `next` is the token that follows in the text.
  void Add(const float* base, const float* log_probs, int64_t n_vocab, int32_t next);

  int64_t n() const { return kl_.n(); }
  Estimate MeanKl() const { return kl_.Mean(); }
  Estimate LogRatio() const { return log_ratio_.Mean(); }  // ln(PPL / base PPL)
  Estimate TopAgreement() const;                           // share of equal first choices
  // The table that --kl-divergence prints; every line ends with a newline.
  std::string Report() const;

 private:
  MeanOf kl_, nll_, base_nll_, log_ratio_;
  int64_t n_same_top_ = 0;
  std::vector<float> kl_samples_;
};

}  // namespace thermocline
