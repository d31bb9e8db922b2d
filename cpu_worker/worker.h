// The rank on CPUs: binds its threads to a node, and runs Forward. No wire (common/worker).
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/worker/phased_rank.h"
#include "cpu_worker/capture.h"
#include "cpu_worker/forward.h"
#include "cpu_worker/kv_cache.h"
#include "cpu_worker/shard.h"
#include "cpu_worker/team.h"

namespace thermocline {

class CpuWorker : public PhasedRank {
 public:
  // With as many threads as the worker has, of their own.
  absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes) const override;
  absl::StatusOr<worker::v1::StartCaptureResponse> StartCapture(
      const worker::v1::StartCaptureRequest& request) override;
  absl::StatusOr<std::shared_ptr<const CaptureView>> ReadCapture(int32_t layer) const override;

 private:
  absl::StatusOr<worker::v1::ConfigureResponse> SetUp(const worker::v1::ConfigureRequest& request,
                                                      const OpenedModel& model) override;
  absl::Status Load(const std::function<bool(int64_t, int64_t)>& on_progress) override;
  absl::Status RunSteps(Exchange& exchange) override;
  void FillStats(worker::v1::StatsResponse* response) const override;
  void Drop() override;
  absl::Status MakeForward();

  const kernels::Ops* ops_ = nullptr;
  std::unique_ptr<Team> team_;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Forward> forward_;
  std::shared_ptr<Capture> capture_;
  Forward::Options forward_options_;
  int32_t node_ = -1;
};

}  // namespace thermocline
