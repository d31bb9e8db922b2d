// A progress bar for a person who waits: one line that redraws itself on a terminal, one line at
// the end elsewhere. Knows nothing of what is being done.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace thermocline {

class Progress {
 public:
  // `out` (stderr, usually) must outlive this. Nothing is ever written when not `enabled`.
  Progress(std::string title, FILE* out, bool enabled);
  ~Progress();  // leaves a bar that never finished on a line of its own
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // done, total: bytes. On a terminal redraws at most ten times a second.
  void Update(int64_t done, int64_t total);
  // The last line: how much in what time. Only the first call counts.
  void Finish();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(Clock::time_point now);

  const std::string title_;
  FILE* const out_;
  const bool enabled_, is_terminal_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_drawn_;
  int64_t done_ = 0, total_ = 0;
  bool drawn_ = false, finished_ = false;
};

}  // namespace thermocline
