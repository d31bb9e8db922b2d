// Answers the public API's requests on a fleet: prompts, sampling, stop texts, streaming, one
// request at a time in order of arrival. The gRPC service and main are thin layers over it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/engine/prefill_pace.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/stepper.h"
#include "proto/inference.pb.h"

namespace thermocline {

class Inference {
 public:
  // max_waiting: requests that wait behind the running one; more are refused.
  Inference(std::unique_ptr<Stepper> stepper, int64_t max_waiting);

  // Whether the caller still wants the answer; asked before every step and while waiting.
  using IsCancelled = std::function<bool()>;
  // Gets every message of the stream; false ends the request as cancelled.
  using Emit = std::function<bool(const v1::GenerateResponse&)>;

  // Blocks until the request is done. Errors as inference.proto says; Cancelled when cancelled.
  absl::Status Generate(const v1::GenerateRequest& request, const IsCancelled& is_cancelled,
                        const Emit& emit);
  v1::TokenizeResponse Tokenize(const v1::TokenizeRequest& request) const;
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request) const;
  v1::ListModelsResponse ListModels() const;
  absl::StatusOr<v1::StatsResponse> Stats() const { return stepper_->DescribeRanks(); }

  absl::Status state() const { return stepper_->state(); }  // of the fleet

 private:
  class Turn;  // a place in the queue

  // Brings slot 0 to hold the prompt and leaves its last token's logits in row 0. Tokens that the
  // slot holds already, from its first position on and in the same mode, are not computed again;
  // returns how many.
  absl::StatusOr<int64_t> Prefill(const Request& request, const IsCancelled& is_cancelled);
  // Appends tokens to slot 0 in one step, in the slot's mode; of the last one's logits all are
  // wanted, the best, or none.
  enum class Wanted { kNone, kBest, kLogits };
  static Wanted WantedBy(const Request& request) {
    return request.sampling.NeedsOnlyBest() ? Wanted::kBest : Wanted::kLogits;
  }
  absl::Status Step(absl::Span<const int32_t> tokens, Wanted wanted);
  absl::Status Answer(const Request& request, double queue_ms, const IsCancelled& is_cancelled,
                      const Emit& emit);

  std::unique_ptr<Stepper> stepper_;
  int64_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable turn_changed_;
  std::deque<uint64_t> queue_;  // tickets; the front one runs
  uint64_t next_ticket_ = 0;
  PrefillPace pace_;                             // as measured by all requests so far
  std::vector<int32_t> slot_tokens_;             // what slot 0's KV cache holds
  TokenMode slot_mode_ = TokenMode::kAsPlanned;  // that all of them were computed in
};

}  // namespace thermocline
