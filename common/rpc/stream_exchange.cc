// See stream_exchange.h. One frame each way in an exchange: PARTIAL, then REDUCED.
#include "common/rpc/stream_exchange.h"

#include <cstring>

#include "common/util/check.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

// Well below any deadline for progress, well above the time between two exchanges.
constexpr std::chrono::milliseconds kSignInterval(250);

}  // namespace

StreamExchange::StreamExchange(FrameStream* stream, const ExchangeShape& shape, uint32_t epoch,
                               int32_t vocab_begin, int32_t vocab_end)
    : stream_(stream),
      shape_(shape),
      slice_(vocab_end - vocab_begin),
      partial_(int64_t{shape.max_tokens} * shape.d_model),
      logits_(shape.max_logit_rows * slice_),
      candidates_(shape.max_logit_rows) {
  place_.epoch = epoch;
}

absl::StatusOr<Step> StreamExchange::NextStep() {
  RETURN_IF_ERROR(Receive());
  RETURN_IF_ERROR(CheckStepFrame(frame_, shape_, place_.epoch, place_.step));
  place_.step = frame_.step();
  place_.exchange = 0;
  empty_ = false;
  n_elements_ = int64_t{frame_.n_tokens()} * shape_.d_model;
  n_logit_rows_ = frame_.n_logit_rows();
  wants_best_only_ = frame_.wants_best_only();
  last_sign_ = Clock::now();
  tokens_.resize(frame_.n_tokens());
  x_.resize(n_elements_);
  const size_t token_bytes = tokens_.size() * sizeof(StepToken);
  std::memcpy(tokens_.data(), frame_.payload().data(), token_bytes);
  std::memcpy(x_.data(), frame_.payload().data() + token_bytes, n_elements_ * sizeof(float));
  Step step;
  step.epoch = place_.epoch;
  step.number = place_.step;
  step.tokens = tokens_;
  step.n_logit_rows = n_logit_rows_;
  step.wants_best_only = wants_best_only_;
  step.x = x_.data();
  return step;
}

// A broken stream shows at the next Arrive().
void StreamExchange::Working() {
  const Clock::time_point now = Clock::now();
  if (now - last_sign_ < kSignInterval) return;
  last_sign_ = now;
  FillWorkingFrame(place_.epoch, place_.step, &working_);
  stream_->Write(working_);
}

absl::Status StreamExchange::Arrive() {
  THERMOCLINE_CHECK(place_.exchange < shape_.ExchangesPerStep());
  FillFrame(Frame::PARTIAL, place_, partial_.data(), empty_ ? 0 : n_elements_, &frame_);
  empty_ = false;
  RETURN_IF_ERROR(Send());
  RETURN_IF_ERROR(Receive());
  RETURN_IF_ERROR(CheckFrame(frame_, Frame::REDUCED, place_, n_elements_));
  ++place_.exchange;
  last_sign_ = Clock::now();
  return absl::OkStatus();
}

void StreamExchange::Collect(float* h, int64_t begin, int64_t end) {
  std::memcpy(h + begin, frame_.payload().data() + begin * sizeof(float),
              (end - begin) * sizeof(float));
}

absl::Status StreamExchange::FinishStep() {
  THERMOCLINE_CHECK(place_.exchange == shape_.ExchangesPerStep());
  const void* values = logits_.data();
  if (wants_best_only_) values = candidates_.data();
  FillFrame(Frame::LOGITS, {place_.epoch, place_.step, 0}, values,
            LogitValues(n_logit_rows_, wants_best_only_, slice_), &frame_);
  return Send();
}

absl::Status StreamExchange::Send() {
  if (stream_->Write(frame_)) return absl::OkStatus();
  return absl::UnavailableError("the exchange stream to the coordinator broke");
}

absl::Status StreamExchange::Receive() {
  if (stream_->Read(&frame_)) return absl::OkStatus();
  return absl::UnavailableError("the exchange stream from the coordinator broke");
}

}  // namespace thermocline
