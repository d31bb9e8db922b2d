// Batches of launches on the host's clock, and the plain read.
#include "tests/bench/device_bench_timer.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "common/util/status_macros.h"
#include "tests/bench/device_bench_read.h"

namespace thermocline::kernels {
namespace {

constexpr int kRepeats = 9;
constexpr double kBatchUs = 2000;
// A batch ends with one wait for the device: of this many round trips, it is below 2 %.
constexpr double kBatchRoundTrips = 50;
// CUDA queues 1,024 launches, then the host waits as if launching were slow; ops launch up to two
// kernels.
constexpr int64_t kMaxLaunches = 500;
constexpr double kHostBoundShare = 0.9;
constexpr int64_t kPatternBytes = 1 << 20;

double NowUs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceTimer>> DeviceTimer::Create(Device* device, int64_t n_bytes,
                                                                 bool is_quick) {
  std::unique_ptr<DeviceTimer> timer(new DeviceTimer(device, n_bytes, is_quick));
  RETURN_IF_ERROR(timer->FillMemory());
  RETURN_IF_ERROR(timer->MeasureOverhead());
  return timer;
}

absl::Status DeviceTimer::FillMemory() {
  ASSIGN_OR_RETURN(memory_, device_->Allocate(n_bytes_));
  ASSIGN_OR_RETURN(out_, device_->Allocate(16));
  std::mt19937 random(1);
  std::vector<uint16_t> pattern(kPatternBytes / sizeof(uint16_t));
  for (uint16_t& value : pattern) value = static_cast<uint16_t>(0x2c00 + random() % 0x400);
  for (int64_t at = 0; at < n_bytes_; at += kPatternBytes) {
    const int64_t n = std::min(kPatternBytes, n_bytes_ - at);
    RETURN_IF_ERROR(device_->Upload(memory_ + at, pattern.data(), n));
  }
  return device_->Synchronize();
}

absl::Status DeviceTimer::MeasureOverhead() {
  const auto launch = [this](const uint8_t* copy) { return Read(copy, 1); };
  std::vector<double> round_trips;
  for (int i = 0; i < (is_quick_ ? 3 : 200); ++i) {
    const double begin = NowUs();
    RETURN_IF_ERROR(device_->Check(launch(memory_), "read"));
    RETURN_IF_ERROR(device_->Synchronize());
    round_trips.push_back(NowUs() - begin);
  }
  std::sort(round_trips.begin(), round_trips.end());
  round_trip_us_ = round_trips[round_trips.size() / 2];
  ASSIGN_OR_RETURN(const LaunchTime time, Time("read", 0, launch));
  launch_us_ = time.median_us;
  return absl::OkStatus();
}

absl::StatusOr<LaunchTime> DeviceTimer::Time(
    const char* op, int64_t stride_bytes,
    const std::function<LaunchError(const uint8_t* copy)>& launch) const {
  const int64_t n_copies = stride_bytes == 0 ? 1 : n_bytes_ / stride_bytes;
  int64_t copy = 0;
  double host_us = 0;
  const auto batch_us = [&](int64_t n_launches) -> absl::StatusOr<double> {
    const double begin = NowUs();
    for (int64_t i = 0; i < n_launches; ++i) {
      RETURN_IF_ERROR(device_->Check(launch(memory_ + copy * stride_bytes), op));
      copy = (copy + 1) % n_copies;
    }
    host_us = NowUs() - begin;
    RETURN_IF_ERROR(device_->Synchronize());
    return NowUs() - begin;
  };
  int64_t n_launches = 1;
  if (!is_quick_) {
    const double wanted_us = std::max(kBatchUs, kBatchRoundTrips * round_trip_us_);
    ASSIGN_OR_RETURN(double us, batch_us(n_launches));  // it also warms up
    while (us < wanted_us && n_launches < kMaxLaunches) {
      n_launches = std::min(2 * n_launches, kMaxLaunches);
      ASSIGN_OR_RETURN(us, batch_us(n_launches));
    }
  }
  std::vector<std::pair<double, bool>> batches;  // us a launch, host bound
  for (int i = 0; i < (is_quick_ ? 1 : kRepeats); ++i) {
    ASSIGN_OR_RETURN(const double us, batch_us(n_launches));
    batches.emplace_back(us / static_cast<double>(n_launches), host_us > kHostBoundShare * us);
  }
  std::sort(batches.begin(), batches.end());
  const auto& [median_us, is_host_bound] = batches[batches.size() / 2];
  return LaunchTime{median_us, batches.front().first, is_host_bound};
}

absl::StatusOr<double> DeviceTimer::ReadGbps(int64_t n_bytes) const {
  const int64_t n_pieces = std::max<int64_t>(n_bytes / kReadPieceBytes, 1);
  const int64_t stride_bytes = n_pieces * kReadPieceBytes;
  ASSIGN_OR_RETURN(const LaunchTime time, Time("read", stride_bytes, [&](const uint8_t* copy) {
                     return Read(copy, n_pieces);
                   }));
  return static_cast<double>(stride_bytes) / time.median_us * 1e-3;
}

LaunchError DeviceTimer::Read(const uint8_t* from, int64_t n_pieces) const {
#if THERMOCLINE_HAS_CUDA
  if (device_->name() != "emulated") {
    return cuda::read(device_->stream(), from, n_pieces, out_);
  }
#endif
  return emulated::read(device_->stream(), from, n_pieces, out_);
}

}  // namespace thermocline::kernels
