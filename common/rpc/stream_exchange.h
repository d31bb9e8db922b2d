// A rank's exchange over the stream to the coordinator, where a RankProxy (proxy.h) stands for it
// in the segment. Sums come back ready, added in rank order by the proxy: the same bits.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "common/exchange/exchange.h"
#include "common/exchange/segment.h"
#include "common/rpc/exchange_server.h"
#include "common/rpc/frame.h"

namespace thermocline {

// Errors: Unavailable when the stream broke or the coordinator gave the fleet up, DataLoss for a
// frame that is not the expected one, Cancelled at shutdown.
class StreamExchange : public Exchange {
 public:
  // The stream must outlive it. [vocab_begin, vocab_end) is the rank's slice of the logits.
  StreamExchange(FrameStream* stream, const ExchangeShape& shape, uint32_t epoch,
                 int32_t vocab_begin, int32_t vocab_end);

  absl::StatusOr<Step> NextStep() override;
  float* Partial() override { return partial_.data(); }
  void NoPartial() override { empty_ = true; }
  void Working() override;
  absl::Status Arrive() override;

  // The proxy adds alone; nothing is sliced.
  bool sliced() const override { return false; }
  int64_t slice_begin() const override { return 0; }
  int64_t slice_end() const override { return 0; }
  void AddSlice(const float*, int64_t, int64_t) override {}
  absl::Status ArriveSlices() override { return absl::OkStatus(); }

  void Collect(float* h, int64_t begin, int64_t end) override;
  float* Logits(int32_t row) override { return logits_.data() + row * slice_; }
  LogitCandidate* Candidates() override { return candidates_.data(); }
  absl::Status FinishStep() override;

 private:
  absl::Status Send();     // frame_
  absl::Status Receive();  // into frame_

  FrameStream* stream_;
  const ExchangeShape shape_;
  const int64_t slice_;  // vocab_end - vocab_begin
  FramePlace place_;
  int64_t n_elements_ = 0;  // n_tokens * d_model of the current step
  int32_t n_logit_rows_ = 0;
  bool wants_best_only_ = false;
  bool empty_ = false;
  Frame frame_;  // the one that was sent or received last, but WORKING
  Frame working_;
  std::chrono::steady_clock::time_point last_sign_;  // to the coordinator, of this rank
  std::vector<StepToken> tokens_;                    // [n_tokens]
  std::vector<float> x_;                             // [n_tokens, d_model]
  std::vector<float> partial_;                       // [max_tokens, d_model]
  std::vector<float> logits_;                        // [max_logit_rows, vocab_end - vocab_begin]
  std::vector<LogitCandidate> candidates_;           // [max_logit_rows]
};

}  // namespace thermocline
