// Configuration, loading, serving, in this order.
#include "common/worker/phased_rank.h"

#include <unistd.h>

#include "common/util/status_macros.h"
#include "common/util/version.h"

namespace thermocline {

void AddFfnCounts(const std::vector<FfnCounts>& layers, worker::v1::StatsResponse* response) {
  for (const FfnCounts& counts : layers) {
    worker::v1::FfnCounts* message = response->add_ffn();
    message->set_tokens(counts.tokens);
    message->set_neurons(counts.neurons);
    message->set_computed(counts.computed);
    message->set_fired(counts.fired);
    message->set_bytes(counts.bytes);
    message->set_missed(counts.missed);
    message->set_mass(counts.mass);
    message->set_missed_mass(counts.missed_mass);
  }
}

absl::Status PhasedRank::Expect(Phase phase) const {
  if (phase_ == phase) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "calls come in this order: Configure, LoadShard, AttachSegment or Exchange");
}

void PhasedRank::DropAll() {
  Drop();
  trace_.reset();
  model_.reset();
  carrier_.clear();
  phase_ = Phase::kNew;
}

absl::StatusOr<worker::v1::ConfigureResponse> PhasedRank::Configure(
    const worker::v1::ConfigureRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ == Phase::kServing) {
    return absl::FailedPreconditionError("this worker serves another coordinator at the moment");
  }
  DropAll();
  ASSIGN_OR_RETURN(model_, OpenModel(request));
  if (request.trace()) trace_ = std::make_unique<TraceRecorder>();
  absl::StatusOr<worker::v1::ConfigureResponse> response = SetUp(request, *model_);
  if (!response.ok()) {
    DropAll();
    return response;
  }
  rank_ = request.rank();
  epoch_ = request.epoch();
  vocab_ = model_->spec.vocab;
  exchange_shape_ = model_->exchange_shape;
  phase_ = Phase::kConfigured;
  response->set_version(kVersion);
  response->set_pid(getpid());
  return response;
}

absl::Status PhasedRank::LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress) {
  std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(Expect(Phase::kConfigured));
  if (const absl::Status status = Load(on_progress); !status.ok()) {
    DropAll();
    return status;
  }
  model_.reset();
  phase_ = Phase::kLoaded;
  return absl::OkStatus();
}

absl::Status PhasedRank::StartServing(const std::string& carrier) {
  std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(Expect(Phase::kLoaded));
  phase_ = Phase::kServing;
  carrier_ = carrier;
  return absl::OkStatus();
}

absl::Status PhasedRank::Prepare(Exchange& exchange) {
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::Status status = PrepareSteps(exchange);
  if (!status.ok()) DropAll();
  return status;
}

absl::Status PhasedRank::Serve(Exchange& exchange) {
  const absl::Status end = RunSteps(exchange);
  std::lock_guard<std::mutex> lock(mutex_);
  DropAll();
  return end;
}

absl::StatusOr<std::vector<TraceSpan>> PhasedRank::ReadTrace() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (trace_ == nullptr) {
    return absl::FailedPreconditionError("this worker was not configured to trace its steps");
  }
  return trace_->Read();
}

worker::v1::StatsResponse PhasedRank::Stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  worker::v1::StatsResponse response;
  response.set_rank(rank_);
  response.set_pid(getpid());
  if (phase_ == Phase::kNew) return response;
  response.set_carrier(carrier_);
  FillStats(&response);
  return response;
}

}  // namespace thermocline
