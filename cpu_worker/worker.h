// A rank without its wire: configured by a message, it loads its shard and serves steps on any
// exchange. worker_service.h puts gRPC in front of it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/segment.h"
#include "cpu_worker/capture.h"
#include "cpu_worker/forward.h"
#include "cpu_worker/kv_cache.h"
#include "cpu_worker/measure.h"
#include "cpu_worker/shard.h"
#include "cpu_worker/team.h"
#include "proto/worker.pb.h"

namespace thermocline {

class CpuWorker {
 public:
  // Binds its threads to the node, opens and checks the model, lays out the shard. What an earlier
  // fleet left is dropped; while one is being served, FailedPrecondition, as for another version or
  // model; and all errors of opening a model.
  absl::StatusOr<worker::v1::ConfigureResponse> Configure(
      const worker::v1::ConfigureRequest& request);
  // After Configure. on_progress as Shard::Load.
  absl::Status LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress);
  // After LoadShard: from now on this worker is one fleet's, over this carrier.
  absl::Status StartServing(const std::string& carrier);
  // Then: serves steps until the exchange ends, and drops the shard.
  absl::Status Serve(Exchange& exchange);

  // A read test with as many threads as the worker has, of their own. After Configure; it says
  // something while no step runs.
  absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes) const;
  worker::v1::StatsResponse Stats() const;

  // While serving. InvalidArgument for layers or numbers that can't be; errors of Capture::Create.
  absl::StatusOr<worker::v1::StartCaptureResponse> StartCapture(
      const worker::v1::StartCaptureRequest& request);
  // The one started last; FailedPrecondition without one, InvalidArgument for a layer that the
  // model does not have.
  absl::StatusOr<std::shared_ptr<const Capture>> ReadCapture(int32_t layer) const;

  // Of the configuration; valid after Configure.
  int32_t rank() const { return rank_; }
  uint32_t epoch() const { return epoch_; }
  const ExchangeShape& exchange_shape() const { return exchange_shape_; }
  Range vocab() const { return shard_->vocab(); }

 private:
  enum class Phase { kNew, kConfigured, kLoaded, kServing };
  absl::Status Expect(Phase phase) const;
  absl::StatusOr<worker::v1::ConfigureResponse> SetUp(const worker::v1::ConfigureRequest& request);
  absl::StatusOr<Predictor> OpenPredictor(const worker::v1::ConfigureRequest& request,
                                          const GgufFile& model, const ModelConfig& config,
                                          const ShardSpec& spec);
  absl::Status MakeForward();
  void Drop();

  mutable std::mutex mutex_;  // guards the phase; steps run without it
  Phase phase_ = Phase::kNew;
  std::unique_ptr<GgufFile> file_, predictor_file_;  // closed when the shard is loaded
  const kernels::Ops* ops_ = nullptr;
  std::unique_ptr<Team> team_;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Forward> forward_;
  std::shared_ptr<Capture> capture_;
  Forward::Options forward_options_;
  std::string carrier_;
  int32_t rank_ = -1, node_ = -1;
  uint32_t epoch_ = 0;
  ExchangeShape exchange_shape_;
};

}  // namespace thermocline
