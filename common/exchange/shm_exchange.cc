// A rank's exchange over the segment: arriving, checking, adding. How waiting works is in wait.cc.
#include "common/exchange/shm_exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/util/check.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr int64_t kNoTimeout = -1;      // the coordinator keeps the deadline and stops the segment
constexpr int64_t kLineElements = 16;   // f32 in a cache line
constexpr int64_t kAddElements = 4096;  // 16 KiB of sums stay in L1 while all partials are added

// out[0, n) += partial[0, n)
void AddTo(float* __restrict out, const float* __restrict partial, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += partial[i];
}

}  // namespace

ShmExchange::ShmExchange(Segment* segment, int32_t rank, int32_t vocab_begin)
    : segment_(segment),
      rank_(rank),
      vocab_begin_(vocab_begin),
      steps_seen_(segment->header().first_count),
      arrivals_(segment->header().first_count),
      device_arrivals_(segment->header().first_count) {}

absl::StatusOr<Step> ShmExchange::NextStep() {
  SegmentHeader& header = segment_->header();
  if (WaitFor(header.posted, steps_seen_ + 1, header.abort, header.spin_us, kNoTimeout) !=
      WaitResult::kReached) {
    return segment_->StopStatus();
  }
  const ExchangeShape& shape = segment_->shape();
  n_tokens_ = header.n_tokens;
  if (n_tokens_ < 1 || n_tokens_ > shape.max_tokens || header.n_logit_rows < 0 ||
      header.n_logit_rows > shape.max_logit_rows) {
    segment_->Stop(StopReason::kFailed);
    return absl::DataLossError(fmt::format(
        "step {} has {} tokens and {} logit rows, the segment holds {} and {}", header.step_number,
        n_tokens_, header.n_logit_rows, shape.max_tokens, shape.max_logit_rows));
  }
  ++steps_seen_;
  step_number_ = header.step_number;
  n_elements_ = int64_t{n_tokens_} * shape.d_model;
  exchange_ = 0;
  empty_ = false;
  Step step;
  step.epoch = segment_->epoch();
  step.number = step_number_;
  step.tokens = absl::MakeConstSpan(segment_->tokens(), n_tokens_);
  step.n_logit_rows = header.n_logit_rows;
  step.wants_best_only = header.wants_best_only != 0;
  step.x = segment_->x();
  step.has_tail = has_tail_ = shape.tail.HasTail(step.tokens);
  return step;
}

float* ShmExchange::Partial() { return segment_->partial(rank_, buffer()); }

void ShmExchange::NoPartial() { empty_ = true; }

void ShmExchange::Working() {
  std::atomic<uint32_t>& beats = segment_->heartbeat(rank_).value;  // this rank is its only writer
  beats.store(beats.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

absl::Status ShmExchange::Arrive() {
  THERMOCLINE_CHECK(exchange_ < segment_->shape().ExchangesPerStep(has_tail_));
  PartialHeader& mine = segment_->partial_header(rank_, buffer());
  mine.epoch = segment_->epoch();
  mine.exchange = exchange_;
  mine.step_number = step_number_;
  mine.is_empty = empty_ ? 1 : 0;
  empty_ = false;
  RETURN_IF_ERROR(ArriveAndWait());
  RETURN_IF_ERROR(CheckPartials());
  ++exchange_;
  return absl::OkStatus();
}

absl::Status ShmExchange::ArriveAndWait() {
  SegmentHeader& header = segment_->header();
  ++arrivals_;
  Advance(segment_->arrived(rank_));
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    if (WaitFor(segment_->arrived(rank), arrivals_, header.abort, header.spin_us, kNoTimeout) !=
        WaitResult::kReached) {
      return segment_->StopStatus();
    }
  }
  return absl::OkStatus();
}

absl::Status ShmExchange::CheckPartials() {
  for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
    const PartialHeader& found = segment_->partial_header(rank, buffer());
    if (found.epoch == segment_->epoch() && found.step_number == step_number_ &&
        found.exchange == exchange_) {
      continue;
    }
    const absl::Status error =
        absl::DataLossError(fmt::format("rank {} left a partial of epoch {}, step {}, exchange {}; "
                                        "rank {} is in epoch {}, step {}, "
                                        "exchange {}",
                                        rank, found.epoch, found.step_number, found.exchange, rank_,
                                        segment_->epoch(), step_number_, exchange_));
    segment_->Stop(StopReason::kFailed);
    return error;
  }
  return absl::OkStatus();
}

bool ShmExchange::sliced() const { return segment_->shape().Sliced(n_tokens_); }

// Slices start at cache lines, so that no two ranks write to one.
int64_t ShmExchange::slice_begin() const {
  return n_elements_ * rank_ / segment_->shape().n_ranks / kLineElements * kLineElements;
}

int64_t ShmExchange::slice_end() const {
  const int32_t n_ranks = segment_->shape().n_ranks;
  if (rank_ + 1 == n_ranks) return n_elements_;
  return n_elements_ * (rank_ + 1) / n_ranks / kLineElements * kLineElements;
}

void ShmExchange::AddSlice(const float* h, int64_t begin, int64_t end) {
  std::copy(h + begin, h + end, segment_->reduced() + begin);
  AddPartials(segment_->reduced(), begin, end);
}

absl::Status ShmExchange::ArriveSlices() { return ArriveAndWait(); }

void ShmExchange::Collect(float* h, int64_t begin, int64_t end) {
  if (sliced()) {
    std::copy(segment_->reduced() + begin, segment_->reduced() + end, h + begin);
  } else {
    AddPartials(h, begin, end);
  }
}

void ShmExchange::AddPartials(float* out, int64_t begin, int64_t end) {
  const int arrived_in = 1 - buffer();  // Arrive has moved on to the next exchange
  for (int64_t at = begin; at < end; at += kAddElements) {
    const int64_t n = std::min(kAddElements, end - at);
    for (int32_t rank = 0; rank < segment_->shape().n_ranks; ++rank) {
      if (segment_->partial_header(rank, arrived_in).is_empty != 0) continue;
      AddTo(out + at, segment_->partial(rank, arrived_in) + at, n);
    }
  }
}

float* ShmExchange::Logits(int32_t row) { return segment_->logits(row) + vocab_begin_; }

absl::Status ShmExchange::FinishStep() {
  SegmentHeader& header = segment_->header();
  const ExchangeShape& shape = segment_->shape();
  THERMOCLINE_CHECK(exchange_ == shape.ExchangesPerStep(has_tail_));
  ++arrivals_;
  Advance(segment_->arrived(rank_));
  // The coordinator sleeps on `finished`; only the last rank of the step wakes it.
  const uint32_t steps = steps_seen_ - header.first_count;
  const uint32_t last = header.first_count + steps * static_cast<uint32_t>(shape.n_ranks);
  if (header.finished.value.fetch_add(1) + 1 == last) WakeAll(header.finished);
  return absl::OkStatus();
}

absl::Span<uint8_t> ShmExchange::memory() {
  return absl::MakeSpan(segment_->data(), segment_->shape().SegmentBytes());
}

ExchangeMemory ShmExchange::layout() {
  static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(Counter) % 4 == 0);
  ExchangeMemory layout;
  layout.abort = reinterpret_cast<const uint32_t*>(&segment_->header().abort.value);
  layout.arrived = reinterpret_cast<uint32_t*>(&segment_->arrived(0).value);
  layout.arrived_stride = sizeof(Counter) / sizeof(uint32_t);
  layout.headers = &segment_->partial_header(0, 0);
  layout.partials = segment_->partial(0, 0);
  layout.partial_stride = segment_->partial(0, 1) - segment_->partial(0, 0);
  layout.n_ranks = segment_->shape().n_ranks;
  layout.rank = rank_;
  layout.epoch = segment_->epoch();
  return layout;
}

// A rank that is about to sleep sees the counter's new value, or is seen here.
void ShmExchange::WakeWaiters() {
  Counter& mine = segment_->arrived(rank_);
  const uint32_t now = mine.value.load();
  if (now == device_arrivals_) return;
  device_arrivals_ = now;
  if (mine.sleepers.load() != 0) WakeAll(mine);
}

bool ShmExchange::spins() const { return segment_->header().spin_us > 0; }

absl::Status ShmExchange::SkipExchanges() {
  THERMOCLINE_CHECK(n_tokens_ == 1 && exchange_ == 0);
  if (segment_->header().abort.value.load() != 0) return segment_->StopStatus();
  WakeWaiters();
  exchange_ = segment_->shape().ExchangesPerStep(has_tail_);
  arrivals_ += exchange_;
  return absl::OkStatus();
}

}  // namespace thermocline
