// The exchange as a rank sees it: steps come in, partial sums meet, logits go out. One interface,
// two carriers: ShmExchange (shm_exchange.h) and StreamExchange (common/rpc/stream_exchange.h).
//
// A rank's threads run one step together; `leader` marks what exactly one of them calls, while the
// others wait at the team's barrier.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/exchange/exchange_memory.h"
#include "common/exchange/logit_candidate.h"

namespace thermocline {

// Which neurons a token may do without. Only layers that the plan computes sparsely leave any out.
enum class TokenMode : int32_t {
  kAsPlanned = 0,
  kOff = 1,    // none
  kExact = 2,  // those whose activation is 0
};

// One token of a step. Plain data: it lies in the segment and travels in frames as it is.
struct StepToken {
  int32_t slot;       // the session's KV cache slot
  int32_t position;   // in that slot, from 0
  int32_t logit_row;  // row of the logits that it wants, or -1
  TokenMode mode = TokenMode::kAsPlanned;
};

struct Step {
  uint32_t epoch = 0;   // of the fleet; a payload of another epoch is refused
  uint64_t number = 0;  // counts up
  absl::Span<const StepToken> tokens;
  int32_t n_logit_rows = 0;
  bool wants_best_only = false;  // ranks leave Candidates() instead of Logits()
  const float* x = nullptr;      // [n_tokens, d_model], the embeddings; valid until the step ends

  // Whether some token is at a tail position: then ranks meet twice more in every layer, before its
  // two exchanges. The first time q, k and v of the layer stand in Exchange::tail(), the second
  // time what was made of them.
  bool has_tail = false;

  int64_t n_tokens() const { return static_cast<int64_t>(tokens.size()); }
};

// Leader only.
class DeviceAccess {
 public:
  virtual ~DeviceAccess() = default;
  // All of the exchange's memory, to be registered with the device.
  virtual absl::Span<uint8_t> memory() = 0;
  virtual ExchangeMemory layout() = 0;  // addresses in memory()
  // Between NextStep and FinishStep of a step of one token: what all ranks' counters are at.
  virtual uint32_t arrivals() const = 0;
  // Often, while the device works: who sleeps until this rank arrives is woken by nobody else.
  virtual void WakeWaiters() = 0;
  virtual bool spins() const = 0;  // whether the host has a core to wait with
  // The device has arrived in all exchanges of the step, before Logits and FinishStep. An error
  // when the fleet was given up meanwhile.
  virtual absl::Status SkipExchanges() = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // Leader. Waits, without limit, for the next step. Cancelled when the fleet shuts down; another
  // error when the fleet has been given up (it says why).
  virtual absl::StatusOr<Step> NextStep() = 0;

  // Where this rank leaves its partial sums of the coming exchange, [n_tokens, d_model]. Changes
  // with every exchange. Every rank arrives in every exchange; one with nothing to add calls
  // NoPartial() instead of writing zeros.
  virtual float* Partial() = 0;
  virtual void NoPartial() = 0;  // leader, before Arrive()

  // Leader, from time to time while it computes: so that a rank that is slow is not taken for one
  // that hangs. Cheap enough to be called for every few rows of a product.
  virtual void Working() = 0;

  // Leader, when the partial is written. Returns when all ranks' partials can be read.
  virtual absl::Status Arrive() = 0;

  // Whether this step's sums are made in slices (prefill in shared memory): then each thread calls
  // AddSlice for its part of [slice_begin, slice_end), and the leader ArriveSlices.
  virtual bool sliced() const = 0;
  virtual int64_t slice_begin() const = 0;  // in elements of [n_tokens * d_model]
  virtual int64_t slice_end() const = 0;
  virtual void AddSlice(const float* h, int64_t begin, int64_t end) = 0;
  virtual absl::Status ArriveSlices() = 0;

  // Any thread: h[begin, end) becomes h + partial of rank 0 + partial of rank 1 + ..., in that
  // order.
  virtual void Collect(float* h, int64_t begin, int64_t end) = 0;

  // Of steps with tail positions: Meet is an exchange without partials; all that was written to
  // tail() before can be read after it. Leader only.
  absl::Status Meet() {
    NoPartial();
    return Arrive();
  }
  virtual TailMemory tail() { return {}; }  // null where the exchange is not in this host's memory

  // Of layers of which a rank decides for others: it writes them before it arrives with the partial
  // sum of the attention, of which it has all; they are read until the layer's next exchange. Null
  // where no layer has one, or where the exchange is not in this host's memory.
  virtual ChoiceMemory choices() { return {}; }

  // This rank's slice of logit row `row`: [vocab_end - vocab_begin] f32, then the step is done.
  virtual float* Logits(int32_t row) = 0;
  // Instead, in steps that want the best only: [n_logit_rows], the best of this rank's slice in
  // each row. A rank whose slice is empty leaves them alone.
  virtual LogitCandidate* Candidates() = 0;
  virtual absl::Status FinishStep() = 0;  // leader

  // For a rank whose device exchanges by itself in steps of one token, instead of Partial, Arrive
  // and Collect. Null where the exchange is not in this host's memory.
  virtual DeviceAccess* device_access() { return nullptr; }
};

}  // namespace thermocline
