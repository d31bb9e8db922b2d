// Counters between processes: advancing, sleeping and waking. Who waits for what is not known here.
#include "common/exchange/wait.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <optional>

namespace thermocline {
namespace {

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4,
              "a futex word is 32 bits");

constexpr int64_t kNsPerUs = 1000;
constexpr int64_t kNsPerS = 1000 * 1000 * 1000;
constexpr int kPausesPerClockRead = 16;  // a pause takes about as long as reading the clock

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerS + now.tv_nsec;
}

// Sleeps while the word holds `seen`, until a wake-up or the deadline. Not FUTEX_PRIVATE: the
// counter lies in memory shared between processes.
void Sleep(Counter& counter, uint32_t seen, int64_t deadline_ns) {
  timespec deadline = {deadline_ns / kNsPerS, deadline_ns % kNsPerS};
  syscall(SYS_futex, &counter.value, FUTEX_WAIT_BITSET, seen,
          deadline_ns == INT64_MAX ? nullptr : &deadline, nullptr, FUTEX_BITSET_MATCH_ANY);
}

// The counter is read before the abort word: Segment::Stop writes them in the other order, so a
// value that Stop has changed is never taken for an arrival.
std::optional<WaitResult> Look(uint32_t value, uint32_t target, const Counter& abort) {
  if (abort.value.load() != 0) return WaitResult::kAborted;
  if (at_or_after(value, target)) return WaitResult::kReached;
  return std::nullopt;
}

std::optional<WaitResult> Spin(Counter& counter, uint32_t target, const Counter& abort,
                               int64_t until_ns) {
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (auto result = Look(counter.value.load(), target, abort)) return result;
      _mm_pause();
    }
  } while (NowNs() < until_ns);
  return std::nullopt;
}

// A sleeper announces itself before it reads the counter, and who advances it reads `sleepers`
// afterwards (seq_cst): one of the two sees the other. If the counter moves between our reading it
// and the kernel's, the kernel does not let us sleep.
WaitResult SleepUntil(Counter& counter, uint32_t target, const Counter& abort,
                      int64_t deadline_ns) {
  std::optional<WaitResult> result;
  counter.sleepers.fetch_add(1);
  while (true) {
    const uint32_t seen = counter.value.load();
    result = Look(seen, target, abort);
    if (result) break;
    if (deadline_ns != INT64_MAX && NowNs() >= deadline_ns) {
      result = WaitResult::kTimeout;
      break;
    }
    Sleep(counter, seen, deadline_ns);
  }
  counter.sleepers.fetch_sub(1);
  return *result;
}

}  // namespace

void WakeAll(Counter& counter) {
  syscall(SYS_futex, &counter.value, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Advance(Counter& counter, uint32_t n) {
  counter.value.fetch_add(n);
  if (counter.sleepers.load() != 0) WakeAll(counter);
}

WaitResult WaitFor(Counter& counter, uint32_t target, const Counter& abort, uint32_t spin_us,
                   int64_t timeout_us) {
  if (auto result = Look(counter.value.load(), target, abort)) return *result;
  const int64_t start_ns = NowNs();
  const int64_t deadline_ns = timeout_us < 0 ? INT64_MAX : start_ns + timeout_us * kNsPerUs;
  if (spin_us > 0) {
    const int64_t spin_until_ns = start_ns + int64_t{spin_us} * kNsPerUs;
    if (auto result = Spin(counter, target, abort, std::min(spin_until_ns, deadline_ns))) {
      return *result;
    }
  }
  return SleepUntil(counter, target, abort, deadline_ns);
}

}  // namespace thermocline
