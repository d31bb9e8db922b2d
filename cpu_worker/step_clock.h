// Where the time of steps goes, as the leader of a rank sees it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace thermocline {

enum class StepPart { kAttention, kChoose, kGate, kUp, kDown, kExchange, kOutput, kOther };
inline constexpr int kStepParts = 8;

class StepClock {
 public:
  void Start() { last_ = Clock::now(); }
  // The time since the last call belongs to this part. Thread 0 only; others' calls do nothing.
  void Mark(int32_t thread, StepPart part) {
    if (thread != 0) return;
    const Clock::time_point now = Clock::now();
    nanoseconds_[static_cast<int>(part)] += (now - last_).count();
    last_ = now;
  }
  int64_t nanoseconds(StepPart part) const { return nanoseconds_[static_cast<int>(part)]; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  std::array<int64_t, kStepParts> nanoseconds_ = {};
};

}  // namespace thermocline
