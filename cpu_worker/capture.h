// What a rank remembers of the steps it runs, for those who prepare sparse execution: how often
// each of its neurons fired, and inputs of its FFNs. No computing, no wire.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "common/worker/rank.h"
#include "cpu_worker/arena.h"

namespace thermocline {

class Capture : public CaptureView {
 public:
  struct Options {
    int64_t d_model = 0;
    std::vector<int64_t> n_counted;  // [n_layers], neurons whose firings are counted
    std::vector<int32_t> sampled;    // layers whose inputs are kept, ascending
    int64_t n_tokens = 0;            // that will be run
    int64_t n_samples = 0;           // of these, spread evenly over them
  };
  // Takes all its memory. ResourceExhausted, with the sizes and the remedy, when there is not so
  // much.
  static absl::StatusOr<std::unique_ptr<Capture>> Create(const Options& options);

  // The leader, around each step; a step waits for a reader and readers for a step. EndStep also
  // after a step that failed, or none.
  void BeginStep(int64_t n_tokens);
  void EndStep();
  // In a step. Counts of a layer's neurons [n_counted], each to be written by one thread only; null
  // where none are counted.
  uint32_t* fired(int64_t layer) { return fired_[layer].empty() ? nullptr : fired_[layer].data(); }
  // In a step: x [d_model] is the FFN's input, after its norm, of token `token` of the step.
  void Take(int64_t layer, int64_t token, const float* x);

  int64_t n_tokens() const override;
  std::vector<uint32_t> Fired(int64_t layer) const override;
  std::vector<float> Samples(int64_t layer, int64_t begin, int64_t end) const override;
  int64_t d_model() const override { return options_.d_model; }
  int64_t n_bytes() const;

 private:
  explicit Capture(const Options& options);
  // The number of samples among the first n tokens.
  int64_t SamplesBefore(int64_t n_tokens) const;

  const Options options_;
  std::vector<std::vector<uint32_t>> fired_;  // [n_layers][n_counted]
  std::vector<float*> samples_;               // [n_layers]: [n_samples, d_model] or null
  std::unique_ptr<Arena> arena_;              // of samples_
  mutable std::mutex mutex_;
  mutable std::condition_variable step_ended_;
  bool in_step_ = false;       // guarded by mutex_; what the step writes is its own meanwhile
  int64_t n_tokens_ = 0;       // before the step
  int64_t n_step_tokens_ = 0;  // of the step
};

}  // namespace thermocline
