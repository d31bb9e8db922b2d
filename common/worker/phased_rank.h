// The life of a rank, the same for every kind: configured, loaded, serving, and back to new. A kind
// says what each of these takes.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/worker/ffn_counts.h"
#include "common/worker/open_model.h"
#include "common/worker/rank.h"

namespace thermocline {

// Into a rank's statistics, layer by layer.
void AddFfnCounts(const std::vector<FfnCounts>& layers, worker::v1::StatsResponse* response);

class PhasedRank : public Rank {
 public:
  absl::StatusOr<worker::v1::ConfigureResponse> Configure(
      const worker::v1::ConfigureRequest& request) final;
  absl::Status LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress) final;
  absl::Status StartServing(const std::string& carrier) final;
  absl::Status Prepare(Exchange& exchange) final;
  absl::Status Serve(Exchange& exchange) final;
  worker::v1::StatsResponse Stats() const final;
  absl::StatusOr<std::vector<TraceSpan>> ReadTrace() const final;
  int32_t rank() const final { return rank_; }
  uint32_t epoch() const final { return epoch_; }
  const ExchangeShape& exchange_shape() const final { return exchange_shape_; }
  Range vocab() const final { return vocab_; }

 protected:
  enum class Phase { kNew, kConfigured, kLoaded, kServing };

  // What a kind does; all but RunSteps are called with mutex() held. Lays the shard out; the
  // response is what only it knows. The model stays where it is until the shard is loaded.
  virtual absl::StatusOr<worker::v1::ConfigureResponse> SetUp(
      const worker::v1::ConfigureRequest& request, const OpenedModel& model) = 0;
  virtual absl::Status Load(const std::function<bool(int64_t, int64_t)>& on_progress) = 0;
  virtual absl::Status PrepareSteps(Exchange&) { return absl::OkStatus(); }
  virtual absl::Status RunSteps(Exchange& exchange) = 0;
  virtual void FillStats(worker::v1::StatsResponse* response) const = 0;  // after Configure
  virtual void Drop() = 0;  // all that SetUp and Load made

  std::mutex& mutex() const { return mutex_; }  // guards the phase; steps run without it
  Phase phase() const { return phase_; }
  TraceRecorder* trace() const { return trace_.get(); }  // since SetUp; null: steps are not traced
  absl::Status Expect(Phase phase) const;                // FailedPrecondition in another one

 private:
  void DropAll();

  mutable std::mutex mutex_;
  Phase phase_ = Phase::kNew;
  std::optional<OpenedModel> model_;  // closed when the shard is loaded
  std::unique_ptr<TraceRecorder> trace_;
  std::string carrier_;
  int32_t rank_ = -1;
  uint32_t epoch_ = 0;
  Range vocab_;
  ExchangeShape exchange_shape_;
};

}  // namespace thermocline
