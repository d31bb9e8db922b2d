// The coordinator's side of the segment: posts a step, waits, and finds who is late. What is done
// about it is the coordinator's.
#include "common/exchange/step_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr int kLooksPerTimeout = 8;  // a stall is noticed at most an eighth of the timeout late

using Clock = std::chrono::steady_clock;

}  // namespace

StepDriver::StepDriver(Segment* segment)
    : segment_(segment), arrivals_(segment->header().first_count) {}

absl::Status StepDriver::Run(absl::Span<const StepToken> tokens, int32_t n_logit_rows,
                             int64_t stall_timeout_ms) {
  RETURN_IF_ERROR(CheckStep(tokens, n_logit_rows));
  SegmentHeader& header = segment_->header();
  const ExchangeShape& shape = segment_->shape();
  const int64_t n_tokens = static_cast<int64_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), segment_->tokens());
  header.n_tokens = static_cast<int32_t>(n_tokens);
  header.n_logit_rows = n_logit_rows;
  header.step_number = ++step_number_;
  late_.clear();
  Advance(header.posted);
  RETURN_IF_ERROR(WaitForEnd(n_tokens, stall_timeout_ms));
  arrivals_ += shape.ArrivalsPerStep(n_tokens);
  return absl::OkStatus();
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
  std::vector<uint32_t> seen = Progress();
  Clock::time_point changed = Clock::now();
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
    std::vector<uint32_t> now = Progress();
    if (now != seen) {
      seen = std::move(now);
      changed = Clock::now();
    } else if (Clock::now() - changed >= std::chrono::milliseconds(stall_timeout_ms)) {
      segment_->Stop(StopReason::kFailed);
      return Stalled(seen, n_tokens, stall_timeout_ms);
    }
  }
}

std::vector<uint32_t> StepDriver::Progress() {
  std::vector<uint32_t> arrivals;
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    arrivals.push_back(segment_->arrived(rank).value.load() - arrivals_);
  }
  return arrivals;
}

absl::Status StepDriver::Stalled(const std::vector<uint32_t>& arrivals, int64_t n_tokens,
                                 int64_t stall_timeout_ms) {
  const ExchangeShape& shape = segment_->shape();
  const uint32_t least = *std::min_element(arrivals.begin(), arrivals.end());
  std::string ranks;
  for (int32_t rank = 0; rank < shape.n_ranks; ++rank) {
    if (arrivals[rank] != least) continue;
    ranks += fmt::format("{}{}", late_.empty() ? "" : ", ", rank);
    late_.push_back(rank);
  }
  const uint32_t exchange = least / shape.ArrivalsPerExchange(n_tokens);
  const std::string what =
      exchange < shape.ExchangesPerStep()
          ? fmt::format("arrived in exchange {} of step {}", exchange, step_number_)
          : fmt::format("finished step {}", step_number_);
  return absl::DeadlineExceededError(
      fmt::format("{} {} {} not {} for {:g} s", late_.size() == 1 ? "rank" : "ranks", ranks,
                  late_.size() == 1 ? "has" : "have", what, stall_timeout_ms / 1000.0));
}

}  // namespace thermocline
