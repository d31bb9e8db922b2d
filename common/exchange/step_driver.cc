// The coordinator's side of the segment: posts a step, waits, and finds who is late. What is done
// about it is the coordinator's.
#include "common/exchange/step_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// A rank's last move is noticed at most an eighth of the timeout late, and so is the timeout's end.
constexpr int kLooksPerTimeout = 8;

}  // namespace

StepDriver::StepDriver(Segment* segment)
    : segment_(segment), arrivals_(segment->header().first_count) {}

absl::Status StepDriver::Run(absl::Span<const StepToken> tokens, int32_t n_logit_rows,
                             int64_t stall_timeout_ms, bool wants_best_only) {
  RETURN_IF_ERROR(CheckStep(tokens, n_logit_rows));
  const ExchangeShape& shape = segment_->shape();
  const int64_t n_tokens = static_cast<int64_t>(tokens.size());
  has_tail_ = shape.tail.HasTail(tokens);
  late_.clear();
  Post(tokens, n_logit_rows, wants_best_only);
  RETURN_IF_ERROR(WaitForEnd(n_tokens, stall_timeout_ms));
  arrivals_ += shape.ArrivalsPerStep(n_tokens, has_tail_);
  return absl::OkStatus();
}

void StepDriver::Post(absl::Span<const StepToken> tokens, int32_t n_logit_rows,
                      bool wants_best_only) {
  SegmentHeader& header = segment_->header();
  std::copy(tokens.begin(), tokens.end(), segment_->tokens());
  header.n_tokens = static_cast<int32_t>(tokens.size());
  header.n_logit_rows = n_logit_rows;
  header.wants_best_only = wants_best_only ? 1 : 0;
  header.step_number = ++step_number_;
  // Not every rank leaves some.
  for (int32_t rank = 0; wants_best_only && rank < segment_->shape().n_ranks; ++rank) {
    std::fill_n(segment_->candidates(rank), n_logit_rows, LogitCandidate());
  }
  Advance(header.posted);
}

LogitCandidate StepDriver::best(int32_t row) {
  LogitCandidate best;
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    const LogitCandidate& of_rank = segment_->candidates(rank)[row];
    if (Beats(of_rank, best)) best = of_rank;
  }
  return best;
}

absl::Status StepDriver::CheckStep(absl::Span<const StepToken> tokens, int32_t n_logit_rows) const {
  const ExchangeShape& shape = segment_->shape();
  if (tokens.empty() || tokens.size() > static_cast<size_t>(shape.max_tokens)) {
    return absl::InvalidArgumentError(
        fmt::format("a step of {} tokens; 1 to {} fit", tokens.size(), shape.max_tokens));
  }
  if (n_logit_rows < 0 || n_logit_rows > shape.max_logit_rows) {
    return absl::InvalidArgumentError(
        fmt::format("a step of {} logit rows; 0 to {} fit", n_logit_rows, shape.max_logit_rows));
  }
  return absl::OkStatus();
}

absl::Status StepDriver::WaitForEnd(int64_t n_tokens, int64_t stall_timeout_ms) {
  SegmentHeader& header = segment_->header();
  const uint32_t n_ranks = static_cast<uint32_t>(segment_->shape().n_ranks);
  const uint32_t end =
      header.first_count + static_cast<uint32_t>(step_number_) * n_ranks;  // cyclic
  const int64_t look_us = std::max<int64_t>(1, stall_timeout_ms * 1000 / kLooksPerTimeout);
  seen_.assign(n_ranks, {0, 0, Clock::now()});
  least_arrivals_ = 0;
  while (true) {
    // No spinning: the cores are the workers'.
    switch (WaitFor(header.finished, end, header.abort, /*spin_us=*/0, look_us)) {
      case WaitResult::kReached:
        return absl::OkStatus();
      case WaitResult::kAborted:
        return absl::UnavailableError(fmt::format("step {} was given up: {}", step_number_,
                                                  std::string(segment_->StopStatus().message())));
      case WaitResult::kTimeout:
        break;
    }
    Look(stall_timeout_ms);
    if (!late_.empty()) {
      segment_->Stop(StopReason::kFailed);
      return Stalled(n_tokens, stall_timeout_ms);
    }
  }
}

void StepDriver::Look(int64_t stall_timeout_ms) {
  const Clock::time_point now = Clock::now();
  uint32_t least = UINT32_MAX;
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    Seen& seen = seen_[rank];
    const uint32_t arrivals = segment_->arrived(rank).value.load() - arrivals_;
    const uint32_t heartbeat = segment_->heartbeat(rank).value.load(std::memory_order_relaxed);
    if (arrivals != seen.arrivals || heartbeat != seen.heartbeat) seen = {arrivals, heartbeat, now};
    least = std::min(least, arrivals);
  }
  if (least != least_arrivals_) {  // who waited for the last one computes from now on
    for (Seen& seen : seen_) seen.moved = now;
    least_arrivals_ = least;
  }
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    const Seen& seen = seen_[rank];
    const bool is_still = now - seen.moved >= std::chrono::milliseconds(stall_timeout_ms);
    if (is_still && seen.arrivals == least) late_.push_back(rank);
  }
}

absl::Status StepDriver::Stalled(int64_t n_tokens, int64_t stall_timeout_ms) const {
  const ExchangeShape& shape = segment_->shape();
  std::string ranks;
  for (const int32_t rank : late_) ranks += fmt::format("{}{}", ranks.empty() ? "" : ", ", rank);
  const uint32_t exchange = shape.ExchangeAfter(least_arrivals_, n_tokens, has_tail_);
  const std::string what =
      exchange < shape.ExchangesPerStep(has_tail_)
          ? fmt::format("arrived in exchange {} of step {}", exchange, step_number_)
          : fmt::format("finished step {}", step_number_);
  return absl::DeadlineExceededError(
      fmt::format("{} {} {} not {} for {:g} s", late_.size() == 1 ? "rank" : "ranks", ranks,
                  late_.size() == 1 ? "has" : "have", what, stall_timeout_ms / 1000.0));
}

}  // namespace thermocline
