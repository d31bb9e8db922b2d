// The shared-memory segment of a fleet on one host: an anonymous memfd and the layout of what lies
// in it. Waiting and counting is in wait.h, a rank's use of it in shm_exchange.h, the coordinator's
// in step_driver.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "common/exchange/exchange_memory.h"
#include "common/exchange/logit_candidate.h"
#include "common/exchange/wait.h"

namespace thermocline {

// Of everything that processes of a fleet share as plain bytes: the segment; StepToken and
// LogitCandidate also travel in frames. Counts up with every change of it.
inline constexpr uint32_t kExchangeLayout = 6;

// A context whose K and V lie in two places: positions below `begin` with the layer's heads, on
// GPUs; the tail, from there on, in the memory of CPU ranks (plan.h).
struct TailShape {
  int32_t begin = 0;  // 0: there are no tail positions, and no dimensions
  int32_t n_heads = 0, n_kv_heads = 0, d_head = 0;

  bool operator==(const TailShape&) const = default;
  bool IsInTail(const StepToken& token) const { return begin > 0 && token.position >= begin; }
  bool HasTail(absl::Span<const StepToken> tokens) const;
};

// All sizes of a segment follow from these; every rank is told them and checks them on attach.
struct ExchangeShape {
  int32_t n_ranks = 0;
  int32_t max_tokens = 0;  // of one step
  int32_t d_model = 0;
  int32_t n_layers = 0;
  int32_t n_vocab = 0;
  int32_t max_logit_rows = 0;  // of one step
  TailShape tail = {};
  int32_t n_choices = 0;  // neurons of a layer that one rank decides on for others, at most

  bool operator==(const ExchangeShape&) const = default;
  absl::Status Check() const;  // all positive, the total below 2^40 bytes
  uint64_t SegmentBytes() const;
  bool Sliced(int64_t n_tokens) const { return n_tokens > 1 && n_ranks > 1; }
  // After attention and after the FFN of each layer; before these two meetings, if has_tail.
  uint32_t ExchangesPerStep(bool has_tail = false) const {
    return (has_tail ? 4 : 2) * static_cast<uint32_t>(n_layers);
  }
  // Of one rank: its exchanges, and the end of the step.
  uint32_t ArrivalsPerStep(int64_t n_tokens, bool has_tail = false) const;
  // The exchange in which the next arrival is, after so many; ExchangesPerStep: the step's end.
  uint32_t ExchangeAfter(uint32_t n_arrivals, int64_t n_tokens, bool has_tail) const;
};

// First bytes of the segment. Plain data and atomics, one writer a cache line.
struct alignas(64) SegmentHeader {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t epoch;
  ExchangeShape shape;
  uint32_t spin_us;      // how long a rank's wait spins before it sleeps; set by the coordinator
  uint32_t first_count;  // what posted, finished and arrived start at
  alignas(64) Counter posted;        // steps posted so far; written by the coordinator
  alignas(64) Counter finished;      // steps finished, each counted once by every rank
  alignas(64) Counter abort;         // 0, or a StopReason; looked at by every wait
  alignas(64) uint64_t step_number;  // the step that `posted` announces
  int32_t n_tokens;
  int32_t n_logit_rows;
  int32_t wants_best_only;  // 0 or 1: candidates instead of logits
};

enum class StopReason : uint32_t { kNone = 0, kShutdown = 1, kFailed = 2 };

// Moves while the rank computes. Written by its leader alone; nobody sleeps on it.
struct alignas(64) Heartbeat {
  std::atomic<uint32_t> value{0};
};

class Segment {
 public:
  // A sealed memfd (no shrink, no grow, no further seals), close-on-exec, zeroed, header written.
  // ResourceExhausted names the bytes when they can't be had.
  // Counters start at first_count; only tests of their wrap-around care.
  static absl::StatusOr<std::unique_ptr<Segment>> Create(const ExchangeShape& shape, uint32_t epoch,
                                                         uint32_t spin_us,
                                                         uint32_t first_count = 0);
  // Maps a segment that was handed over; takes the descriptor, also when it fails. InvalidArgument
  // when its size, seals, magic, version, shape or epoch are not the expected ones.
  static absl::StatusOr<std::unique_ptr<Segment>> Attach(int fd, const ExchangeShape& expected,
                                                         uint32_t epoch);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int fd() const { return fd_; }
  uint8_t* data() { return base_; }  // all of it
  const ExchangeShape& shape() const { return shape_; }
  uint32_t epoch() const { return epoch_; }
  SegmentHeader& header() { return *reinterpret_cast<SegmentHeader*>(base_); }
  Counter& arrived(int32_t rank);  // waits and step ends of a rank, so far
  Heartbeat& heartbeat(int32_t rank);
  StepToken* tokens();                                      // [max_tokens]
  float* x();                                               // [max_tokens, d_model]
  PartialHeader& partial_header(int32_t rank, int buffer);  // buffer 0 or 1
  float* partial(int32_t rank, int buffer);                 // [max_tokens, d_model]
  // [max_tokens, d_model]. One is enough: a rank adds its slice of exchange e+1 when all have
  // arrived in e+1, so when all have read the sums of e.
  float* reduced();
  TailMemory tail();  // null without tail positions
  // Null without choices. One is enough: the next layer's are written when all have computed this
  // one's.
  ChoiceMemory choices();
  float* logits(int32_t row);                // [n_vocab]
  LogitCandidate* candidates(int32_t rank);  // [max_logit_rows]

  // Sets the abort word and wakes all who wait. The first reason stays.
  void Stop(StopReason reason);
  // Why waits end with kAborted: Cancelled after kShutdown, Unavailable after kFailed.
  absl::Status StopStatus();

 private:
  // Byte offsets of the parts, from the shape alone. Each part starts at a cache line, vectors at a
  // page, so that a page of a partial lies on the NUMA node of the rank that writes it.
  struct Layout {
    explicit Layout(const ExchangeShape& shape);
    uint64_t arrived, heartbeats, partial_headers, tokens, candidates, candidate_stride, x,
        partials, partial_stride, reduced, tail_q, tail_k, tail_v, tail_state, choices, logits, end;
  };
  friend struct ExchangeShape;

  Segment(int fd, const ExchangeShape& shape, uint32_t epoch)
      : fd_(fd), shape_(shape), epoch_(epoch), layout_(shape) {}
  absl::Status Map();
  absl::Status CheckFile() const;
  absl::Status CheckHeader();

  template <typename T>
  T* At(uint64_t offset) {
    return reinterpret_cast<T*>(base_ + offset);
  }

  int fd_;
  uint8_t* base_ = nullptr;
  ExchangeShape shape_;
  uint32_t epoch_;
  Layout layout_;
};

}  // namespace thermocline
