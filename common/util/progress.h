// A progress bar for a person who waits: one line that redraws itself on a terminal, one line at
// the end elsewhere. Knows nothing of what is being done.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace thermocline {

class Progress {
 public:
  enum class Amount { kMegabytes, kShare };  // what is shown beside the bar, if anything
  // `out` (stderr, usually) must outlive this. Nothing is ever written when not `enabled`.
  Progress(std::string title, FILE* out, bool enabled, Amount amount = Amount::kMegabytes);
  ~Progress();  // leaves a bar that never finished on a line of its own
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // done, total: bytes, or parts of the work. On a terminal redraws at most ten times a second.
  void Update(int64_t done, int64_t total);
  void Rename(std::string title) { title_ = std::move(title); }  // from the next redraw on
  // Takes the bar off the terminal, so that something else can be written; it comes back.
  void Clear();
  // The last line: how much in what time. Only the first call counts.
  void Finish();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(Clock::time_point now);

  std::string title_;
  FILE* const out_;
  const bool enabled_, is_terminal_;
  const Amount amount_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_drawn_;
  int64_t done_ = 0, total_ = 0;
  bool drawn_ = false, finished_ = false;
};

}  // namespace thermocline
