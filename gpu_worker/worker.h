// The rank on a GPU: its device, its shard, and DeviceForward. No wire (common/worker).
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/worker/phased_rank.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_forward.h"
#include "gpu_worker/device_shard.h"

namespace thermocline {

class GpuWorker : public PhasedRank {
 public:
  // Unimplemented: a card's bandwidth is device_bench's to measure.
  absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes) const override;
  // Unimplemented: profiles are made by CPU ranks.
  absl::StatusOr<worker::v1::StartCaptureResponse> StartCapture(
      const worker::v1::StartCaptureRequest& request) override;
  absl::StatusOr<std::shared_ptr<const CaptureView>> ReadCapture(int32_t layer) const override;

 private:
  absl::StatusOr<worker::v1::ConfigureResponse> SetUp(const worker::v1::ConfigureRequest& request,
                                                      const OpenedModel& model) override;
  absl::Status Load(const std::function<bool(int64_t, int64_t)>& on_progress) override;
  absl::Status PrepareSteps(Exchange& exchange) override;
  absl::Status RunSteps(Exchange& exchange) override;
  void FillStats(worker::v1::StatsResponse* response) const override;
  void Drop() override;

  std::unique_ptr<Device> device_;
  std::shared_ptr<const GgufFile> file_;  // that the shard streams neurons from, or null
  std::unique_ptr<DeviceShard> shard_;
  std::unique_ptr<DeviceForward> forward_;
  DeviceForward::Options forward_options_;
  int64_t free_bytes_ = 0;      // of the device's memory, before anything was taken
  int64_t promised_bytes_ = 0;  // by the plan; 0: nothing
  int64_t graph_bytes_ = 0;     // of them, kept for graphs
};

}  // namespace thermocline
