// How device_bench times a launch: on the host's clock, many launches between two waits for the
// device, each on another copy of the weights, so that none finds them in a cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu_worker/device.h"

namespace thermocline::kernels {

struct LaunchTime {
  double median_us = 0;
  double best_us = 0;
  // The host took nearly all of the time to launch: the device may be faster than this.
  bool is_host_bound = false;
};

class DeviceTimer {
 public:
  // n_bytes of the device are taken for copies of weights and filled with f16 of 0.06 to 0.12,
  // which as quants and scales are any number.
  static absl::StatusOr<std::unique_ptr<DeviceTimer>> Create(Device* device, int64_t n_bytes,
                                                             bool is_quick);

  // `launch` puts work on the stream that reads the copy at `copy`; copies are stride_bytes apart
  // (0: there is only one). Quick: one launch, timed once.
  absl::StatusOr<LaunchTime> Time(
      const char* op, int64_t stride_bytes,
      const std::function<LaunchError(const uint8_t* copy)>& launch) const;
  // GB/s of a kernel that reads n_bytes (rounded to kReadPieceBytes), a new place each time.
  absl::StatusOr<double> ReadGbps(int64_t n_bytes) const;

  int64_t n_bytes() const { return n_bytes_; }
  double round_trip_us() const { return round_trip_us_; }  // an empty launch and its wait
  double launch_us() const { return launch_us_; }          // one of many empty launches

 private:
  DeviceTimer(Device* device, int64_t n_bytes, bool is_quick)
      : device_(device), n_bytes_(n_bytes), is_quick_(is_quick) {}
  absl::Status FillMemory();
  absl::Status MeasureOverhead();
  LaunchError Read(const uint8_t* from, int64_t n_pieces) const;

  Device* device_;
  int64_t n_bytes_;
  bool is_quick_;
  uint8_t* memory_ = nullptr;
  uint8_t* out_ = nullptr;
  double round_trip_us_ = 0, launch_us_ = 0;
};

}  // namespace thermocline::kernels
