// A rank's exchange over the shared-memory segment.
#pragma once

#include <memory>

#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"

namespace thermocline {

class ShmExchange : public Exchange, public DeviceAccess {
 public:
  // The segment must outlive it. [vocab_begin, vocab_end) is the rank's slice of the logits.
  ShmExchange(Segment* segment, int32_t rank, int32_t vocab_begin);

  absl::StatusOr<Step> NextStep() override;
  float* Partial() override;
  void NoPartial() override;
  void Working() override;
  absl::Status Arrive() override;
  bool sliced() const override;
  int64_t slice_begin() const override;
  int64_t slice_end() const override;
  void AddSlice(const float* h, int64_t begin, int64_t end) override;
  absl::Status ArriveSlices() override;
  void Collect(float* h, int64_t begin, int64_t end) override;
  TailMemory tail() override { return segment_->tail(); }
  ChoiceMemory choices() override { return segment_->choices(); }
  float* Logits(int32_t row) override;
  LogitCandidate* Candidates() override { return segment_->candidates(rank_); }
  absl::Status FinishStep() override;
  DeviceAccess* device_access() override { return this; }

  absl::Span<uint8_t> memory() override;
  ExchangeMemory layout() override;
  uint32_t arrivals() const override { return arrivals_; }
  void WakeWaiters() override;
  bool spins() const override;
  absl::Status SkipExchanges() override;

 private:
  // Publishes this rank's arrival and waits for everyone else's.
  absl::Status ArriveAndWait();
  // DataLoss when a rank's partial is not of this exchange.
  absl::Status CheckPartials();
  // out[begin, end) += partial of rank 0, of rank 1, ...
  void AddPartials(float* out, int64_t begin, int64_t end);
  // Buffers alternate: a rank writes into the buffer of exchange e again in e+2, when all have
  // arrived in e+1, so when all have read the partials of e. A step starts when all ranks have
  // finished the one before, so counting starts at 0 with every step.
  int buffer() const { return static_cast<int>(exchange_ % 2); }

  Segment* segment_;
  int32_t rank_;
  int32_t vocab_begin_;
  uint32_t steps_seen_;       // cyclic, as `posted`
  uint32_t arrivals_;         // this rank's own, cyclic
  uint32_t device_arrivals_;  // that WakeWaiters has told others of
  uint64_t step_number_ = 0;
  int64_t n_elements_ = 0;  // n_tokens * d_model of the current step
  uint32_t exchange_ = 0;   // of the current step: the coming one, until Arrive the one arrived in
  int32_t n_tokens_ = 0;
  bool has_tail_ = false;  // of the current step
  bool empty_ = false;
};

}  // namespace thermocline
