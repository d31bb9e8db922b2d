// Room for counts and samples, and who may touch it when.
#include "cpu_worker/capture.h"

#include <algorithm>
#include <cstring>

#include "common/util/memory.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

}  // namespace

Capture::Capture(const Options& options)
    : options_(options), samples_(options.n_counted.size(), nullptr) {
  for (const int64_t n : options.n_counted) fired_.emplace_back(n, 0u);
}

absl::StatusOr<std::unique_ptr<Capture>> Capture::Create(const Options& options) {
  const int64_t layer_bytes =
      Arena::Aligned(options.n_samples * options.d_model * static_cast<int64_t>(sizeof(float)));
  const int64_t n_bytes = layer_bytes * static_cast<int64_t>(options.sampled.size());
  const int64_t available = AvailableMemoryBytes();
  if (n_bytes > available) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} samples of {} layers' FFN inputs take {:.2f} GiB, and {:.2f} GiB are free; take fewer "
        "samples, or fewer layers at a time",
        options.n_samples, options.sampled.size(), static_cast<double>(n_bytes) / kGib,
        static_cast<double>(available) / kGib));
  }
  std::unique_ptr<Capture> capture(new Capture(options));
  ASSIGN_OR_RETURN(capture->arena_, Arena::Create(n_bytes, "samples of FFN inputs"));
  for (const int32_t layer : options.sampled) {
    capture->samples_[layer] = reinterpret_cast<float*>(capture->arena_->Take(layer_bytes));
  }
  return capture;
}

int64_t Capture::SamplesBefore(int64_t n_tokens) const {
  return std::min(n_tokens, options_.n_tokens) * options_.n_samples / options_.n_tokens;
}

void Capture::BeginStep(int64_t n_tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  in_step_ = true;
  n_step_tokens_ = n_tokens;
}

void Capture::EndStep() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!in_step_) return;
  in_step_ = false;
  n_tokens_ += n_step_tokens_;
  step_ended_.notify_all();
}

void Capture::Take(int64_t layer, int64_t token, const float* x) {
  if (samples_[layer] == nullptr) return;
  const int64_t at = SamplesBefore(n_tokens_ + token);
  if (SamplesBefore(n_tokens_ + token + 1) == at) return;
  const int64_t d_model = options_.d_model;
  std::memcpy(samples_[layer] + at * d_model, x, d_model * sizeof(float));
}

int64_t Capture::n_tokens() const {
  std::unique_lock<std::mutex> lock(mutex_);
  step_ended_.wait(lock, [this] { return !in_step_; });
  return n_tokens_;
}

std::vector<uint32_t> Capture::Fired(int64_t layer) const {
  std::unique_lock<std::mutex> lock(mutex_);
  step_ended_.wait(lock, [this] { return !in_step_; });
  return fired_[layer];
}

std::vector<float> Capture::Samples(int64_t layer, int64_t begin, int64_t end) const {
  std::unique_lock<std::mutex> lock(mutex_);
  step_ended_.wait(lock, [this] { return !in_step_; });
  const float* samples = samples_[layer];
  end = std::min(end, SamplesBefore(n_tokens_));
  if (samples == nullptr || begin >= end) return {};
  const int64_t d_model = options_.d_model;
  return {samples + begin * d_model, samples + end * d_model};
}

int64_t Capture::n_bytes() const {
  int64_t n = arena_->size();
  for (const auto& counts : fired_) n += static_cast<int64_t>(counts.size() * sizeof(uint32_t));
  return n;
}

}  // namespace thermocline
