// Steps of one token in this host's memory: one graph a step, whose exchanges the device does by
// itself. Nothing is copied by the host's hand and nothing synchronized between the layers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_layers.h"

namespace thermocline {

class DeviceDecode {
 public:
  // Registers the exchange's memory with the device. All must outlive the object.
  static absl::StatusOr<std::unique_ptr<DeviceDecode>> Create(DeviceLayers* layers, Device* device,
                                                              Exchange* exchange);
  // A step that is staged, to the point where FinishStep is due.
  absl::Status Run(const Step& step);

 private:
  // What the device reads before its first exchange and says after the last one.
  struct Control {
    kernels::DeviceStep step;
    uint32_t state;  // kernels::ExchangeState
  };
  // What a graph was captured for; positions of one tile of attention share one.
  using Key = std::tuple<int64_t /*tile*/, int32_t /*n_logit_rows*/, bool /*is_as_planned*/,
                         bool /*has_tail*/>;

  DeviceDecode(DeviceLayers* layers, Device* device, Exchange* exchange)
      : layers_(layers),
        device_(device),
        exchange_(*exchange),
        access_(*exchange->device_access()) {}
  absl::StatusOr<DeviceGraph*> GraphFor(const Key& key);
  absl::Status Enqueue(const Key& key);
  // An exchange with the partial sum; one with nothing to add, in which nobody has anything.
  absl::Status Combine(uint32_t number, bool has_partial);
  absl::Status Meet(uint32_t number);
  absl::Status EnqueueExchange(uint32_t number, const float* partial, int64_t* times);
  absl::Status Await();

  DeviceLayers* const layers_;
  Device* const device_;
  Exchange& exchange_;
  DeviceAccess& access_;
  ExchangeMemory memory_;       // as the device sees it
  Control* control_ = nullptr;  // of the device
  Control* staged_ = nullptr;   // of the host, pinned
  std::map<Key, std::unique_ptr<DeviceGraph>> graphs_;
};

}  // namespace thermocline
