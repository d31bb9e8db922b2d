// The rank on CPUs: binds its threads to a node, and runs Forward. No wire (common/worker).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/worker/rank.h"
#include "cpu_worker/capture.h"
#include "cpu_worker/forward.h"
#include "cpu_worker/kv_cache.h"
#include "cpu_worker/shard.h"
#include "cpu_worker/team.h"

namespace thermocline {

class CpuWorker : public Rank {
 public:
  absl::StatusOr<worker::v1::ConfigureResponse> Configure(
      const worker::v1::ConfigureRequest& request) override;
  absl::Status LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress) override;
  absl::Status StartServing(const std::string& carrier) override;
  absl::Status Serve(Exchange& exchange) override;
  // With as many threads as the worker has, of their own.
  absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes) const override;
  worker::v1::StatsResponse Stats() const override;
  absl::StatusOr<worker::v1::StartCaptureResponse> StartCapture(
      const worker::v1::StartCaptureRequest& request) override;
  absl::StatusOr<std::shared_ptr<const CaptureView>> ReadCapture(int32_t layer) const override;
  int32_t rank() const override { return rank_; }
  uint32_t epoch() const override { return epoch_; }
  const ExchangeShape& exchange_shape() const override { return exchange_shape_; }
  Range vocab() const override { return shard_->vocab(); }

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
