// A 32-bit sequence counter between processes, and waiting on it: spin for a while, then a shared
// futex. seq_cst operations, no fences, so that ThreadSanitizer sees all of it.
#pragma once

#include <atomic>
#include <cstdint>

namespace thermocline {

struct alignas(64) Counter {
  std::atomic<uint32_t> value{0};     // the futex word; compared cyclically
  std::atomic<uint32_t> sleepers{0};  // how many wait in the kernel: none, no wake-up call
};

// a is at or after b, in the cyclic order of 32-bit counters.
inline bool at_or_after(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) >= 0; }

// Adds n to the counter and wakes who sleeps on it.
void Advance(Counter& counter, uint32_t n = 1);
void WakeAll(Counter& counter);

enum class WaitResult { kReached, kAborted, kTimeout };

// Waits until counter is at or after `target`. Ends with kAborted as soon as `abort` is not 0 (who
// sets it wakes the counter, see Segment::Stop), with kTimeout after timeout_us (< 0: never).
WaitResult WaitFor(Counter& counter, uint32_t target, const Counter& abort, uint32_t spin_us,
                   int64_t timeout_us);

}  // namespace thermocline
