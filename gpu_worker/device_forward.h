// Steps over a GPU rank's shard, from one host thread. A step of one token, in this host's memory,
// is device_decode.h's. All others go the plain way: each exchange copies the partial sum to the
// host and waits for it, and the residual stream goes back. Knows nothing of gRPC, files or
// sessions.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_decode.h"
#include "gpu_worker/device_layers.h"
#include "gpu_worker/device_shard.h"

namespace thermocline {

class DeviceForward {
 public:
  using Options = DeviceLayers::Options;
  // Both must outlive the object; the shard has a workspace of DeviceLayers::WorkspaceBytes.
  static absl::StatusOr<std::unique_ptr<DeviceForward>> Create(const DeviceShard* shard,
                                                               Device* device,
                                                               const Options& options);

  // Takes what steps on this exchange need of the device: its memory, graphs.
  absl::Status Prepare(Exchange& exchange);
  // Then, on the same: runs steps until it ends. OK after a shutdown, else why it was given up.
  absl::Status Serve(Exchange& exchange);
  // What its steps did; as of the last step that ended. May be called from any thread.
  struct Totals {
    uint64_t steps = 0;
    int64_t step_ns = 0;  // from a step's arrival to its end, waiting for other ranks included
    std::vector<FfnCounts> ffn;  // [n_layers]; zeros in layers that leave nothing out
    std::string step_form;       // DeviceDecode::form_text(); empty over a stream
  };
  Totals totals() const;

 private:
  DeviceForward(std::unique_ptr<DeviceLayers> layers, Device* device)
      : layers_(std::move(layers)), device_(device) {}
  absl::Status RunStep(const Step& step, Exchange& exchange);
  absl::Status RunPlain(const Step& step, Exchange& exchange);
  // The partial sum, if there is one, meets the others'; h is theirs and ours on both sides.
  absl::Status Combine(bool has_partial, int64_t n_tokens, Exchange& exchange);
  // Until the device has done all; says meanwhile that it works.
  absl::Status Await(Exchange& exchange);
  void CountStep(std::chrono::nanoseconds took);

  const std::unique_ptr<DeviceLayers> layers_;
  Device* const device_;
  std::unique_ptr<DeviceDecode> decode_;  // since Prepare; null over a stream
  mutable std::mutex totals_mutex_;
  Totals totals_;  // guarded by totals_mutex_
};

}  // namespace thermocline
