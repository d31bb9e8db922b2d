// See proxy.h. The thread waits in the segment and in the stream by turns, as the step has it.
#include "common/rpc/proxy.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <string>

#include "common/rpc/status.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr std::chrono::seconds kGrace(1);  // for the worker to end the call by itself

}  // namespace

RankProxy::RankProxy(Segment* segment, int32_t rank, int32_t vocab_begin, int32_t vocab_end,
                     const std::shared_ptr<grpc::Channel>& channel)
    : segment_(segment),
      rank_(rank),
      vocab_begin_(vocab_begin),
      vocab_end_(vocab_end),
      exchange_(segment, rank, vocab_begin),
      stub_(worker::v1::Worker::NewStub(channel)),
      thread_([this] { Run(); }) {}

RankProxy::~RankProxy() {
  segment_->Stop(StopReason::kShutdown);
  if (done_.get_future().wait_for(kGrace) != std::future_status::ready) context_.TryCancel();
  thread_.join();
}

absl::Status RankProxy::status() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

void RankProxy::Run() {
  stream_ = stub_->Exchange(&context_);
  const absl::Status end = TakeSteps();
  const bool is_stopped = segment_->header().abort.value.load() != 0;
  if (!is_stopped || absl::IsDataLoss(end)) {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ =
        absl::Status(end.code(), fmt::format("rank {}: {}", rank_, std::string(end.message())));
  }
  segment_->Stop(StopReason::kFailed);
  EndCall(end);
  done_.set_value();
}

absl::Status RankProxy::TakeSteps() {
  while (true) {
    ASSIGN_OR_RETURN(const Step step, exchange_.NextStep());
    RETURN_IF_ERROR(RunStep(step));
  }
}

absl::Status RankProxy::RunStep(const Step& step) {
  const ExchangeShape& shape = segment_->shape();
  const int64_t n = step.n_tokens() * shape.d_model;
  h_.assign(step.x, step.x + n);
  FillStepFrame(step, shape.d_model, &out_);
  RETURN_IF_ERROR(Send());
  for (uint32_t exchange = 0; exchange < shape.ExchangesPerStep(); ++exchange) {
    RETURN_IF_ERROR(RunExchange({step.epoch, step.number, exchange}, n));
  }
  RETURN_IF_ERROR(TakeLogits(step));
  return exchange_.FinishStep();
}

absl::Status RankProxy::RunExchange(const FramePlace& place, int64_t n) {
  RETURN_IF_ERROR(Receive(Frame::PARTIAL, place, n, Payload::kWholeOrEmpty));
  if (in_.payload().empty()) {
    exchange_.NoPartial();
  } else {
    std::memcpy(exchange_.Partial(), in_.payload().data(), n * sizeof(float));
  }
  RETURN_IF_ERROR(exchange_.Arrive());
  if (exchange_.sliced()) {
    exchange_.AddSlice(h_.data(), exchange_.slice_begin(), exchange_.slice_end());
    RETURN_IF_ERROR(exchange_.ArriveSlices());
  }
  exchange_.Collect(h_.data(), 0, n);
  FillFrame(Frame::REDUCED, place, h_.data(), n, &out_);
  return Send();
}

absl::Status RankProxy::TakeLogits(const Step& step) {
  const int64_t slice = vocab_end_ - vocab_begin_;
  RETURN_IF_ERROR(Receive(Frame::LOGITS, {step.epoch, step.number, 0},
                          LogitValues(step.n_logit_rows, step.wants_best_only, slice),
                          Payload::kWhole));
  if (step.wants_best_only) return TakeCandidates();
  for (int32_t row = 0; row < step.n_logit_rows; ++row) {
    std::memcpy(exchange_.Logits(row), in_.payload().data() + row * slice * sizeof(float),
                slice * sizeof(float));
  }
  return absl::OkStatus();
}

// A token is used as an index later on.
absl::Status RankProxy::TakeCandidates() {
  LogitCandidate* candidates = exchange_.Candidates();
  std::memcpy(candidates, in_.payload().data(), in_.payload().size());
  const size_t n = in_.payload().size() / sizeof(LogitCandidate);
  for (size_t row = 0; row < n; ++row) {
    const LogitCandidate& best = candidates[row];
    if (!IsFinite(best.logit) || (best.token >= vocab_begin_ && best.token < vocab_end_)) continue;
    return absl::DataLossError(
        fmt::format("the best of its logits is token {}; it has those of {} to {}", best.token,
                    vocab_begin_, vocab_end_ - 1));
  }
  return absl::OkStatus();
}

// Tells the worker and waits until it has ended the call.
void RankProxy::EndCall(const absl::Status& reason) {
  if (is_call_over_) return;
  if (absl::IsCancelled(reason)) {
    FillEndFrame(segment_->epoch(), &out_);
  } else {
    FillAbortFrame(segment_->epoch(), std::string(reason.message()), &out_);
  }
  stream_->WriteLast(out_, grpc::WriteOptions());
  while (stream_->Read(&in_)) {  // what the worker sent before it knew
  }
  stream_->Finish();
}

absl::Status RankProxy::Send() {
  if (stream_->Write(out_)) return absl::OkStatus();
  return BrokenStream();
}

absl::Status RankProxy::Receive(Frame::Kind kind, const FramePlace& place, int64_t n,
                                Payload payload) {
  while (stream_->Read(&in_)) {
    if (in_.kind() != Frame::WORKING) return CheckFrame(in_, kind, place, n, payload);
    RETURN_IF_ERROR(CheckFrame(in_, Frame::WORKING, {place.epoch, place.step, 0}, 0));
    exchange_.Working();
  }
  return BrokenStream();
}

absl::Status RankProxy::BrokenStream() {
  is_call_over_ = true;
  const grpc::Status end = stream_->Finish();
  return absl::UnavailableError(
      fmt::format("the exchange stream to its worker ended: {}",
                  end.ok() ? "the worker closed it" : end.error_message()));
}

}  // namespace thermocline
