// The coordinator's side of the exchange: posts steps, waits for their end, reads logits, and says
// who is late. One step at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/exchange/segment.h"

namespace thermocline {

class StepDriver {
  using Clock = std::chrono::steady_clock;

 public:
  explicit StepDriver(Segment* segment);

  float* x() { return segment_->x(); }  // [max_tokens, d_model], to be filled before Run
  // [n_vocab], after Run; not if only the best was wanted.
  const float* logits(int32_t row) { return segment_->logits(row); }
  // Of all ranks, after Run that wanted only the best; token -1 when no logit is finite.
  LogitCandidate best(int32_t row);

  // Posts one step and returns when all ranks have finished it. DeadlineExceeded when a rank that
  // the others wait for neither arrives nor says that it is working for stall_timeout_ms, or up to
  // a quarter longer (the error lists such ranks, see Late());
  // Unavailable when someone stopped the segment meanwhile. After these the segment is stopped.
  // InvalidArgument, with nothing posted, when the step is larger than the segment's.
  absl::Status Run(absl::Span<const StepToken> tokens, int32_t n_logit_rows,
                   int64_t stall_timeout_ms, bool wants_best_only = false);

  // The ranks that hung in the step that failed.
  const std::vector<int32_t>& Late() const { return late_; }
  uint64_t steps() const { return step_number_; }

 private:
  void Post(absl::Span<const StepToken> tokens, int32_t n_logit_rows, bool wants_best_only);
  absl::Status CheckStep(absl::Span<const StepToken> tokens, int32_t n_logit_rows) const;
  absl::Status WaitForEnd(int64_t n_tokens, int64_t stall_timeout_ms);
  // Looks at all ranks. Those furthest behind are the ones that compute, as the others wait for
  // them; of these, late_ gets the ones that have not moved for the timeout.
  void Look(int64_t stall_timeout_ms);
  absl::Status Stalled(int64_t n_tokens, int64_t stall_timeout_ms) const;  // late_ in words

  // What was seen of a rank in this step.
  struct Seen {
    uint32_t arrivals, heartbeat;
    Clock::time_point moved;  // when one of them changed, or the rank's wait for others ended
  };

  Segment* segment_;
  std::vector<Seen> seen_;       // [n_ranks]
  uint32_t least_arrivals_ = 0;  // of seen_
  uint64_t step_number_ = 0;
  uint32_t arrivals_ = 0;  // of every rank, after all steps so far; cyclic
  bool has_tail_ = false;  // of this step
  std::vector<int32_t> late_;
};

}  // namespace thermocline
