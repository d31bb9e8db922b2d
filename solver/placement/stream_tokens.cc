// The two sides, layer by layer.
#include "solver/placement/stream_tokens.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"

namespace thermocline {
namespace {

class Comparison {
 public:
  Comparison(const ModelShape& shape, const Hardware& hardware, const PlannedFleet& fleet)
      : shape_(shape), hardware_(hardware), fleet_(fleet) {
    for (const HardwareRank& rank : hardware.ranks) {
      if (is_gpu(rank)) {
        ++n_gpus_;
      } else {
        pack_gbps_ += rank.pack_gbps;
        cpu_gbps_ += rank.gbps * kCpuShare;
      }
    }
    for (size_t l = 0; l < shape.layers.size(); ++l) AddLayer(l);
  }

  bool IsPossible() const {
    double free_bytes = 0;
    for (size_t r = 0; r < hardware_.ranks.size(); ++r) {
      const RankPlan& plan = fleet_.plan.ranks[r];
      if (!plan.address.empty() || absl::StartsWith(plan.device, "emulated")) return false;
      if (is_gpu(hardware_.ranks[r])) continue;
      if (hardware_.ranks[r].gmacs <= 0 || hardware_.ranks[r].pack_gbps <= 0) return false;
      free_bytes += fleet_.ranks[r].limit_bytes - fleet_.ranks[r].total_bytes();
    }
    return n_gpus_ > 0 && cold_bytes_ > 0 && cold_bytes_ <= free_bytes;
  }
  double cpu_seconds_of_token() const { return cpu_seconds_; }
  double stream_seconds() const { return stream_seconds_; }

 private:
  static bool is_gpu(const HardwareRank& rank) { return rank.kind == RankKind::kGpu; }
  double Neurons(size_t l, size_t r) const {
    int64_t n = 0;
    for (const Range& range : fleet_.plan.layers[l].neurons[r]) n += range.size();
    return static_cast<double>(n);
  }

  void AddLayer(size_t l) {
    const LayerShape& layer = shape_.layers[l];
    const double n_matrices = layer.gate_bytes > 0 ? 3 : 2;
    const double weights = n_matrices * static_cast<double>(shape_.config.d_model);  // of a neuron
    // A token reads its experts only.
    const double used =
        static_cast<double>(shape_.n_experts_used) / static_cast<double>(shape_.n_experts);
    double cold = 0, cpu_seconds = 0, gpu_seconds = 0;
    for (size_t r = 0; r < hardware_.ranks.size(); ++r) {
      const HardwareRank& rank = hardware_.ranks[r];
      if (is_gpu(rank)) continue;
      cold += Neurons(l, r);
      cpu_seconds = std::max(cpu_seconds, used * Neurons(l, r) * weights / (rank.gmacs * 1e9));
    }
    if (cold == 0) return;
    const double neuron_bytes = layer.neuron_bytes();
    const double streamed = cold / static_cast<double>(n_gpus_);  // by each GPU
    for (size_t r = 0; r < hardware_.ranks.size(); ++r) {
      const HardwareRank& rank = hardware_.ranks[r];
      if (!is_gpu(rank)) continue;
      const double in_f16 = 2 * sizeof(uint16_t) * weights;
      const double memory_bytes = (Neurons(l, r) + streamed) * (neuron_bytes + in_f16);
      gpu_seconds = std::max(gpu_seconds, memory_bytes / (rank.gbps * kGpuShare * 1e9) +
                                              streamed * neuron_bytes / (rank.link_gbps * 1e9));
    }
    const double pack_seconds = cold * neuron_bytes * std::max(1 / pack_gbps_, 3 / cpu_gbps_) / 1e9;
    cold_bytes_ += cold * neuron_bytes;
    cpu_seconds_ += cpu_seconds;
    stream_seconds_ += std::max(gpu_seconds, pack_seconds);
  }

  const ModelShape& shape_;
  const Hardware& hardware_;
  const PlannedFleet& fleet_;
  int64_t n_gpus_ = 0;
  double pack_gbps_ = 0, cpu_gbps_ = 0;  // of all CPU ranks
  double cold_bytes_ = 0, cpu_seconds_ = 0, stream_seconds_ = 0;
};

}  // namespace

StreamChoice ChooseStreaming(const ModelShape& shape, const Hardware& hardware,
                             const PlannedFleet& fleet, int64_t batch_size) {
  const Comparison comparison(shape, hardware, fleet);
  if (!comparison.IsPossible()) return {};
  const double meet = std::ceil(comparison.stream_seconds() / comparison.cpu_seconds_of_token());
  if (!(meet <= static_cast<double>(batch_size)) || batch_size < kMinStreamTokens) return {};
  return {std::max(static_cast<int64_t>(meet), kMinStreamTokens),
          1e3 * static_cast<double>(batch_size) * comparison.cpu_seconds_of_token(),
          1e3 * comparison.stream_seconds()};
}

}  // namespace thermocline
