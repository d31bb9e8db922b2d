// The memfd of a fleet: made, checked, mapped, stopped. What ranks do with it is in
// shm_exchange.cc.
#include "common/exchange/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr uint64_t kMagic = 0x4547434d52454854;  // "THERMCGE" as bytes
constexpr uint64_t kLine = 64;
constexpr uint64_t kPage = 4096;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr double kMaxBytes = 1099511627776.0;  // 2^40

uint64_t RoundUp(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

// Words of a token's choices, in whole 16 bytes.
uint64_t ChoiceStride(const ExchangeShape& shape) {
  return RoundUp(static_cast<uint64_t>(shape.n_choices), 4 * 32) / 32;
}

std::string Describe(const ExchangeShape& s) {
  const std::string tail =
      fmt::format(", positions from {} of {} heads ({} KV) of {} values", s.tail.begin,
                  s.tail.n_heads, s.tail.n_kv_heads, s.tail.d_head);
  return fmt::format("{} ranks, {} tokens, d_model {}, {} layers, n_vocab {}, {} logit rows{}{}",
                     s.n_ranks, s.max_tokens, s.d_model, s.n_layers, s.n_vocab, s.max_logit_rows,
                     s.tail.begin > 0 ? tail : "",
                     s.n_choices > 0 ? fmt::format(", {} choices", s.n_choices) : "");
}

absl::Status NotOurs(const std::string& what) {
  return absl::InvalidArgumentError(
      fmt::format("the exchange segment that was handed over {}; start all processes of the fleet "
                  "from one build and one plan",
                  what));
}

}  // namespace

absl::Status ExchangeShape::Check() const {
  if (n_ranks < 1 || max_tokens < 1 || d_model < 1 || n_layers < 1 || n_vocab < 1 ||
      max_logit_rows < 1 || n_choices < 0) {
    return absl::InvalidArgumentError(
        fmt::format("exchange of {}: every size must be positive", Describe(*this)));
  }
  const bool is_tail_well = tail == TailShape{} || (tail.begin > 0 && tail.n_heads > 0 &&
                                                    tail.n_kv_heads > 0 && tail.d_head > 0);
  if (!is_tail_well) {
    return absl::InvalidArgumentError(
        fmt::format("exchange of {}: tail positions need dimensions", Describe(*this)));
  }
  // In floating point, as the product may not fit 64 bits.
  const double vectors = (2.0 * n_ranks + 2.0) * max_tokens * d_model;  // partials, x, reduced
  const double tail_values = double{1} * max_tokens *
                             (double{2} * tail.n_heads + double{2} * tail.n_kv_heads) *
                             (tail.d_head + 2.0);
  const double bytes = 4.0 * (vectors + tail_values + double{1} * max_logit_rows * n_vocab +
                              double{2} * max_logit_rows * n_ranks) +
                       double{1} * max_tokens * n_choices / 8;
  if (bytes >= kMaxBytes) {
    return absl::InvalidArgumentError(
        fmt::format("exchange of {}: would take {:.0f} bytes, more than 2^40; lower --batch-size",
                    Describe(*this), bytes));
  }
  return absl::OkStatus();
}

uint64_t ExchangeShape::SegmentBytes() const { return Segment::Layout(*this).end; }

// Sums in slices take a rank two arrivals, meetings never.
uint32_t ExchangeShape::ArrivalsPerStep(int64_t n_tokens, bool has_tail) const {
  const uint32_t n_sums = ExchangesPerStep(false), n_meetings = ExchangesPerStep(has_tail) - n_sums;
  return n_sums * (Sliced(n_tokens) ? 2 : 1) + n_meetings + 1;
}

uint32_t ExchangeShape::ExchangeAfter(uint32_t n_arrivals, int64_t n_tokens, bool has_tail) const {
  uint32_t exchange = 0;
  for (uint32_t left = n_arrivals; exchange < ExchangesPerStep(has_tail); ++exchange) {
    const bool is_meeting = has_tail && exchange % 4 < 2;
    const uint32_t n = !is_meeting && Sliced(n_tokens) ? 2 : 1;
    if (left < n) break;
    left -= n;
  }
  return exchange;
}

bool TailShape::HasTail(absl::Span<const StepToken> tokens) const {
  return std::any_of(tokens.begin(), tokens.end(),
                     [this](const StepToken& token) { return IsInTail(token); });
}

Segment::Layout::Layout(const ExchangeShape& shape) {
  const uint64_t n_ranks = static_cast<uint64_t>(shape.n_ranks);
  const uint64_t vector_bytes =
      RoundUp(uint64_t{4} * shape.max_tokens * shape.d_model, kPage);  // [max_tokens, d_model]
  arrived = RoundUp(sizeof(SegmentHeader), kLine);
  heartbeats = arrived + n_ranks * sizeof(Counter);
  partial_headers = heartbeats + n_ranks * sizeof(Heartbeat);
  tokens = partial_headers + 2 * n_ranks * sizeof(PartialHeader);
  candidates = RoundUp(tokens + shape.max_tokens * sizeof(StepToken), kLine);
  candidate_stride = RoundUp(shape.max_logit_rows * sizeof(LogitCandidate), kLine);
  x = RoundUp(candidates + n_ranks * candidate_stride, kPage);
  partials = x + vector_bytes;
  partial_stride = vector_bytes;
  reduced = partials + 2 * n_ranks * partial_stride;
  const uint64_t tail_tokens = shape.tail.begin > 0 ? shape.max_tokens : 0;
  const auto tail_bytes = [&](int64_t n_heads, int64_t of_head) {
    return RoundUp(4 * tail_tokens * static_cast<uint64_t>(n_heads * of_head), kPage);
  };
  const TailShape& tail = shape.tail;
  tail_q = reduced + vector_bytes;
  tail_k = tail_q + tail_bytes(tail.n_heads, tail.d_head);
  tail_v = tail_k + tail_bytes(tail.n_kv_heads, tail.d_head);
  tail_state = tail_v + tail_bytes(tail.n_kv_heads, tail.d_head);
  choices = tail_state + tail_bytes(tail.n_heads, 2 + tail.d_head);
  logits =
      choices + RoundUp(4 * static_cast<uint64_t>(shape.max_tokens) * ChoiceStride(shape), kPage);
  end = RoundUp(logits + uint64_t{4} * shape.max_logit_rows * shape.n_vocab, kPage);
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Create(const ExchangeShape& shape, uint32_t epoch,
                                                         uint32_t spin_us, uint32_t first_count) {
  RETURN_IF_ERROR(shape.Check());
  const uint64_t n_bytes = shape.SegmentBytes();
  const auto no_memory = [n_bytes](const char* what) {
    return absl::ResourceExhaustedError(
        fmt::format("no memory for the exchange segment of {} bytes ({}: {}); lower --batch-size",
                    n_bytes, what, std::strerror(errno)));
  };
  // A memfd is filled as it is touched; what can never fit is refused here.
  const uint64_t machine_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * kPage;
  if (n_bytes > machine_bytes) {
    errno = ENOMEM;
    return no_memory("more than this machine has");
  }
  const int fd = memfd_create("thermocline-exchange", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return no_memory("memfd_create");
  std::unique_ptr<Segment> segment(new Segment(fd, shape, epoch));
  if (ftruncate(fd, static_cast<off_t>(n_bytes)) != 0) return no_memory("ftruncate");
  if (fcntl(fd, F_ADD_SEALS, kSeals) != 0) return no_memory("sealing");
  RETURN_IF_ERROR(segment->Map());

  SegmentHeader* header = new (segment->base_) SegmentHeader();
  header->magic = kMagic;
  header->layout_version = kExchangeLayout;
  header->epoch = epoch;
  header->shape = shape;
  header->spin_us = spin_us;
  header->first_count = first_count;
  header->posted.value = first_count;
  header->finished.value = first_count;
  for (int32_t rank = 0; rank < shape.n_ranks; ++rank) {
    (new (&segment->arrived(rank)) Counter())->value = first_count;
    new (&segment->heartbeat(rank)) Heartbeat();
  }
  return segment;
}

absl::StatusOr<std::unique_ptr<Segment>> Segment::Attach(int fd, const ExchangeShape& expected,
                                                         uint32_t epoch) {
  if (absl::Status shape = expected.Check(); !shape.ok()) {
    close(fd);
    return shape;
  }
  std::unique_ptr<Segment> segment(new Segment(fd, expected, epoch));
  RETURN_IF_ERROR(segment->CheckFile());
  RETURN_IF_ERROR(segment->Map());
  RETURN_IF_ERROR(segment->CheckHeader());
  return segment;
}

absl::Status Segment::CheckFile() const {
  struct stat file;
  if (fstat(fd_, &file) != 0) {
    return NotOurs(fmt::format("is no open descriptor ({}: {})", fd_, std::strerror(errno)));
  }
  // Without the seals another process could cut the file under us: SIGBUS.
  const int seals = fcntl(fd_, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) {
    return NotOurs(fmt::format("is not sealed (seals {:#x}, expected {:#x})", seals, kSeals));
  }
  if (static_cast<uint64_t>(file.st_size) != layout_.end) {
    return NotOurs(fmt::format("has {} bytes, expected {} for {}", file.st_size, layout_.end,
                               Describe(shape_)));
  }
  if (fcntl(fd_, F_SETFD, FD_CLOEXEC) != 0) {
    return NotOurs(fmt::format("can't be made close-on-exec ({})", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status Segment::Map() {
  void* base = mmap(nullptr, layout_.end, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(fmt::format(
        "can't map the exchange segment of {} bytes ({})", layout_.end, std::strerror(errno)));
  }
  base_ = static_cast<uint8_t*>(base);
  madvise(base_, layout_.end, MADV_HUGEPAGE);  // as good without, where the kernel doesn't
  return absl::OkStatus();
}

absl::Status Segment::CheckHeader() {
  const SegmentHeader& found = header();
  if (found.magic != kMagic) return NotOurs("has another magic number");
  if (found.layout_version != kExchangeLayout) {
    return NotOurs(
        fmt::format("has layout {}, expected {}", found.layout_version, kExchangeLayout));
  }
  if (found.shape != shape_) {
    return NotOurs(fmt::format("is of {}, expected {}", Describe(found.shape), Describe(shape_)));
  }
  if (found.epoch != epoch_) {
    return NotOurs(fmt::format("is of epoch {}, expected {}", found.epoch, epoch_));
  }
  return absl::OkStatus();
}

Segment::~Segment() {
  if (base_ != nullptr) munmap(base_, layout_.end);
  close(fd_);
}

Counter& Segment::arrived(int32_t rank) { return At<Counter>(layout_.arrived)[rank]; }

Heartbeat& Segment::heartbeat(int32_t rank) { return At<Heartbeat>(layout_.heartbeats)[rank]; }

StepToken* Segment::tokens() { return At<StepToken>(layout_.tokens); }

float* Segment::x() { return At<float>(layout_.x); }

PartialHeader& Segment::partial_header(int32_t rank, int buffer) {
  return At<PartialHeader>(layout_.partial_headers)[2 * rank + buffer];
}

float* Segment::partial(int32_t rank, int buffer) {
  return At<float>(layout_.partials + (2 * uint64_t(rank) + buffer) * layout_.partial_stride);
}

float* Segment::reduced() { return At<float>(layout_.reduced); }

TailMemory Segment::tail() {
  if (shape_.tail.begin == 0) return {};
  return {At<float>(layout_.tail_q), At<float>(layout_.tail_k), At<float>(layout_.tail_v),
          At<float>(layout_.tail_state)};
}

ChoiceMemory Segment::choices() {
  if (shape_.n_choices == 0) return {};
  return {At<uint32_t>(layout_.choices), static_cast<int64_t>(ChoiceStride(shape_))};
}

float* Segment::logits(int32_t row) {
  return At<float>(layout_.logits) + int64_t{row} * shape_.n_vocab;
}

LogitCandidate* Segment::candidates(int32_t rank) {
  return At<LogitCandidate>(layout_.candidates + uint64_t(rank) * layout_.candidate_stride);
}

void Segment::Stop(StopReason reason) {
  uint32_t none = 0;
  header().abort.value.compare_exchange_strong(none, static_cast<uint32_t>(reason));
  // Counters move on by one, so that a waiter that has read the abort word just before it was set,
  // and is about to sleep, finds its word changed and does not.
  const auto release = [](Counter& counter) {
    counter.value.fetch_add(1);
    WakeAll(counter);
  };
  release(header().posted);
  release(header().finished);
  for (int32_t rank = 0; rank < shape_.n_ranks; ++rank) release(arrived(rank));
}

absl::Status Segment::StopStatus() {
  if (header().abort.value.load() == static_cast<uint32_t>(StopReason::kShutdown)) {
    return absl::CancelledError("the fleet is shutting down");
  }
  return absl::UnavailableError(
      "the fleet has been given up: a rank failed or was too late (the coordinator's log says "
      "which)");
}

}  // namespace thermocline
