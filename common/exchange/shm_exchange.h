// A rank's exchange over the shared-memory segment.
#pragma once

#include <memory>

#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"

namespace thermocline {

class ShmExchange : public Exchange {
 public:
  // The segment must outlive it. [vocab_begin, vocab_end) is the rank's slice of the logits.
  ShmExchange(Segment* segment, int32_t rank, int32_t vocab_begin);

  absl::StatusOr<Step> NextStep() override;
  float* Partial() override;
  void NoPartial() override;
  absl::Status Arrive() override;
  bool sliced() const override;
  int64_t slice_begin() const override;
  int64_t slice_end() const override;
  void AddSlice(const float* h, int64_t begin, int64_t end) override;
  absl::Status ArriveSlices() override;
  void Collect(float* h, int64_t begin, int64_t end) override;
  float* Logits(int32_t row) override;
  absl::Status FinishStep() override;

 private:
  // Publishes this rank's arrival and waits for everyone else's.
  absl::Status ArriveAndWait();

  Segment* segment_;
  int32_t rank_;
  int32_t vocab_begin_;
  uint32_t spin_us_;
  uint32_t steps_seen_ = 0;
  uint32_t arrivals_ = 0;   // this rank's own, cyclic
  uint32_t exchange_ = 0;   // of the current step
  int32_t n_tokens_ = 0;
  bool empty_ = false;
};

}  // namespace thermocline
