// Starts a fleet, step by step: model, plan, segment, worker processes, configuration, shards,
// exchange. What it built stays with the Fleet; on an error the Fleet takes all of it down again.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "coordinator/engine/fleet.h"
#include "coordinator/engine/gpu_devices.h"
#include "coordinator/engine/sparse_setup.h"

namespace thermocline {

class FleetStarter {
 public:
  FleetStarter(const FleetOptions& options, const Fleet::OnProgress& on_progress,
               const std::atomic<bool>* cancelled);
  absl::StatusOr<std::unique_ptr<Fleet>> Start();

 private:
  absl::Status MakePlan();
  absl::StatusOr<GpuDevices> FindGpus();
  absl::Status NameDevices();
  absl::Status SetTail();
  absl::Status SetDeciders();
  absl::Status MakeSegment();
  absl::Status StartWorkers();
  absl::Status ConfigureWorkers();
  absl::Status LoadShards();
  absl::Status ConnectExchange();

  // Makes a start-up call to all workers at the same time. When one of them fails, when `look`,
  // which is called now and then meanwhile, does, or when the start is cancelled, the other calls
  // are cancelled; the error is the first one, or Cancelled.
  absl::Status CallAll(const std::function<absl::Status(size_t index)>& call,
                       const std::function<absl::Status()>& look);
  worker::v1::ConfigureRequest ConfigureRequestFor(int32_t rank) const;
  bool UsesSharedMemory(int32_t rank) const;
  bool is_cancelled() const { return cancelled_ != nullptr && cancelled_->load(); }

  const FleetOptions& options_;
  const Fleet::OnProgress& on_progress_;
  const std::atomic<bool>* cancelled_;
  std::unique_ptr<Fleet> fleet_;
  SparseSetup setup_;
  uint32_t spin_us_ = 0;
};

}  // namespace thermocline
