// The coordinator's side of the exchange: posts steps, waits for their end, reads logits, and says
// who is late. One step at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/exchange/segment.h"

namespace thermocline {

class StepDriver {
 public:
  explicit StepDriver(Segment* segment);

  float* x() { return segment_->x(); }  // [max_tokens, d_model], to be filled before Run
  const float* logits(int32_t row) { return segment_->logits(row); }  // [n_vocab], after Run

  // Posts one step and returns when all ranks have finished it. DeadlineExceeded when no rank makes
  // progress for stall_timeout_ms (the error lists the ranks that have not arrived, see Late());
  // Unavailable when someone stopped the segment meanwhile. After these the segment is stopped.
  // InvalidArgument, with nothing posted, when the step is larger than the segment's.
  absl::Status Run(absl::Span<const StepToken> tokens, int32_t n_logit_rows,
                   int64_t stall_timeout_ms);

  // The ranks furthest behind in the step that failed.
  const std::vector<int32_t>& Late() const { return late_; }
  uint64_t steps() const { return step_number_; }

 private:
  absl::Status CheckStep(absl::Span<const StepToken> tokens, int32_t n_logit_rows) const;
  absl::Status WaitForEnd(int64_t n_tokens, int64_t stall_timeout_ms);
  std::vector<uint32_t> Progress();  // [n_ranks], arrivals of each rank in this step
  // Fills late_ and says it in words.
  absl::Status Stalled(const std::vector<uint32_t>& arrivals, int64_t n_tokens,
                       int64_t stall_timeout_ms);

  Segment* segment_;
  uint64_t step_number_ = 0;
  uint32_t arrivals_ = 0;  // of every rank, after all steps so far; cyclic
  std::vector<int32_t> late_;
};

}  // namespace thermocline
