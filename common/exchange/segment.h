// The shared-memory segment of a fleet on one host: an anonymous memfd and the layout of what lies
// in it. Waiting and counting is in wait.h, a rank's use of it in shm_exchange.h, the coordinator's
// in step_driver.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "common/exchange/wait.h"

namespace thermocline {

// All sizes of a segment follow from these; every rank is told them and checks them on attach.
struct ExchangeShape {
  int32_t n_ranks = 0;
  int32_t max_tokens = 0;      // of one step
  int32_t d_model = 0;
  int32_t n_layers = 0;
  int32_t n_vocab = 0;
  int32_t max_logit_rows = 0;  // of one step

  bool operator==(const ExchangeShape&) const = default;
  absl::Status Check() const;      // all positive, the total below 2^40 bytes
  uint64_t SegmentBytes() const;
  // Arrivals of one rank in one step: two exchanges a layer, one or two waits each, and the end.
  bool Sliced(int64_t n_tokens) const { return n_tokens > 1 && n_ranks > 1; }
  uint32_t ArrivalsPerStep(int64_t n_tokens) const;
};

// First bytes of the segment. Plain data and atomics, one writer a cache line.
struct alignas(64) SegmentHeader {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t epoch;
  ExchangeShape shape;
  uint32_t spin_us;                    // how long a wait spins before it sleeps; set by the coordinator
  alignas(64) Counter posted;          // steps posted so far; written by the coordinator
  alignas(64) Counter abort;           // 0, or a StopReason; looked at by every wait
  alignas(64) uint64_t step_number;    // the step that `posted` announces
  int32_t n_tokens;
  int32_t n_logit_rows;
};

enum class StopReason : uint32_t { kNone = 0, kShutdown = 1, kFailed = 2 };

// What stands before each partial: whose, and of which exchange.
struct alignas(64) PartialHeader {
  uint32_t epoch;
  uint32_t exchange;   // number of the exchange in the step, from 0
  uint64_t step_number;
  uint32_t is_empty;   // 1: nothing to add, the payload is not to be read
};

class Segment {
 public:
  // A sealed memfd (no shrink, no grow, no further seals), close-on-exec, zeroed, header written.
  // ResourceExhausted names the bytes when they can't be had.
  static absl::StatusOr<std::unique_ptr<Segment>> Create(const ExchangeShape& shape, uint32_t epoch,
                                                         uint32_t spin_us);
  // Maps a segment that was handed over; takes the descriptor. InvalidArgument when its size, seals,
  // magic, version or shape are not the expected ones.
  static absl::StatusOr<std::unique_ptr<Segment>> Attach(int fd, const ExchangeShape& expected);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int fd() const { return fd_; }
  const ExchangeShape& shape() const { return shape_; }
  SegmentHeader& header() { return *reinterpret_cast<SegmentHeader*>(base_); }
  Counter& arrived(int32_t rank);                    // exchanges and step ends of a rank, so far
  StepToken* tokens();                               // [max_tokens]
  float* x();                                        // [max_tokens, d_model]
  PartialHeader& partial_header(int32_t rank, int buffer);  // buffer 0 or 1
  float* partial(int32_t rank, int buffer);          // [max_tokens, d_model]
  float* reduced(int buffer);                        // [max_tokens, d_model]
  float* logits(int32_t row);                        // [n_vocab]

  // Sets the abort word and wakes all who wait. The first reason stays.
  void Stop(StopReason reason);

 private:
  Segment() = default;
  int fd_ = -1;
  uint8_t* base_ = nullptr;
  uint64_t n_bytes_ = 0;
  ExchangeShape shape_;
  // Byte offsets of the parts, computed from the shape alone.
  uint64_t arrived_at_ = 0, tokens_at_ = 0, x_at_ = 0, partial_at_ = 0, partial_stride_ = 0,
           reduced_at_ = 0, logits_at_ = 0;
};

}  // namespace thermocline
