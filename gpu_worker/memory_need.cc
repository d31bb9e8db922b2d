// The arithmetic of the remedies.
#include "gpu_worker/memory_need.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

// In hundredths, so that what is read off the message is enough.
double GibAbove(int64_t n_bytes) {
  return std::ceil(static_cast<double>(n_bytes) / kGib * 100) / 100;
}
double GibBelow(int64_t n_bytes) {
  return std::floor(static_cast<double>(n_bytes) / kGib * 100) / 100;
}

}  // namespace

int64_t MemoryNeed::limit_bytes() const {
  return budget_bytes > 0 ? std::min(budget_bytes, free_bytes) : free_bytes;
}

std::string MemoryNeed::Describe() const {
  std::vector<std::string> remedies;
  const int64_t limit = limit_bytes();
  if (total_bytes() <= free_bytes) {
    remedies.push_back(fmt::format("raise --vram-budget to {:.2f}", GibAbove(total_bytes())));
  } else if (GibBelow(free_bytes) > 0) {
    remedies.push_back(fmt::format("lower --vram-budget to {:.2f}", GibBelow(free_bytes)));
  }
  const int64_t for_kv = limit - weight_bytes - buffer_bytes - graph_bytes;
  if (kv_bytes > 0 && for_kv >= kv_bytes / n_ctx) {
    remedies.push_back(fmt::format("lower --ctx-size to {}", for_kv / (kv_bytes / n_ctx)));
  }
  if (n_whole_layers > 0) {
    const int64_t of_layer = (weight_bytes + kv_bytes) / n_whole_layers;
    const int64_t for_layers = limit - buffer_bytes - graph_bytes;
    const int64_t n = std::max<int64_t>(for_layers / std::max<int64_t>(of_layer, 1), 0);
    remedies.push_back(fmt::format("lower --gpu-layers to {}", n));
  }
  return fmt::format(
      "weights {:.3f} GiB, KV cache {:.3f} GiB, buffers {:.3f} GiB and graphs {:.3f} GiB are more "
      "than the {:.3f} GiB that may be taken; {}",
      static_cast<double>(weight_bytes) / kGib, static_cast<double>(kv_bytes) / kGib,
      static_cast<double>(buffer_bytes) / kGib, static_cast<double>(graph_bytes) / kGib,
      static_cast<double>(limit) / kGib, fmt::join(remedies, ", or "));
}

absl::Status CheckTaken(const std::string& device, int64_t promised_bytes, int64_t taken_bytes) {
  constexpr int64_t kOfDriver = int64_t{32} << 20;
  const int64_t over = taken_bytes - promised_bytes;
  if (promised_bytes == 0 || over <= kOfDriver) return absl::OkStatus();
  return absl::ResourceExhaustedError(fmt::format(
      "{} reports {:.3f} GiB less free memory than before this worker took weights, KV cache, "
      "buffers and graphs, and the plan promises {:.3f}; if another program took the rest, start "
      "again; else its driver takes more than is planned for: lower --ctx-size, which needs fewer "
      "graphs, or see whether there is a newer one",
      device, static_cast<double>(taken_bytes) / kGib, static_cast<double>(promised_bytes) / kGib));
}

}  // namespace thermocline
