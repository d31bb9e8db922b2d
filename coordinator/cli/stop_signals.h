// SIGINT, SIGTERM and SIGHUP as values that a program looks at. Handlers only set atomics and wake
// a pipe; SIGPIPE is ignored, so that a closed pipe is a write error.
#pragma once

#include <atomic>
#include <chrono>

namespace thermocline {

class StopSignals {
 public:
  static void Install();  // once, before other threads start

  // True from the first signal on, until ClearInterrupts.
  static const std::atomic<bool>& stop();
  static bool IsStopped() { return stop().load(); }
  static int interrupts();        // SIGINTs since ClearInterrupts
  static int termination();       // SIGTERM or SIGHUP if one came, else 0
  static void ClearInterrupts();  // the user has been given the turn back

  static int wake_fd();                                  // readable while a signal is pending
  static bool WaitFor(std::chrono::milliseconds limit);  // stop(), or false when the time is over
  // 128 + the signal's number, as shells count it, or 0 without a signal.
  static int ExitCode();
};

}  // namespace thermocline
