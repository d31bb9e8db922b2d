// Draws the bar of progress.h.
#include "common/util/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace thermocline {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr int kBarWidth = 30;
constexpr const char* kClearLine = "\r\033[K";

double Seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string TimeLeft(double seconds) {
  const int64_t s = static_cast<int64_t>(seconds + 0.5);
  return s < 60 ? fmt::format("{} s", s) : fmt::format("{} min {:02} s", s / 60, s % 60);
}

}  // namespace

Progress::Progress(std::string title, FILE* out, bool enabled, Amount amount)
    : title_(std::move(title)),
      out_(out),
      enabled_(enabled),
      is_terminal_(enabled && isatty(fileno(out)) == 1),
      amount_(amount) {}

Progress::~Progress() {
  if (drawn_ && !finished_) std::fputc('\n', out_);
}

void Progress::Draw(Clock::time_point now) {
  const double share =
      total_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0)
                 : 0.0;
  const int filled = static_cast<int>(share * kBarWidth);
  std::string line = fmt::format("{}{} [{:#<{}}{:-<{}}] {:3.0f} %", kClearLine, title_, "", filled,
                                 "", kBarWidth - filled, share * 100);
  if (amount_ == Amount::kMegabytes) {
    line += fmt::format("  {:.0f} of {:.0f} MB", done_ / 1e6, total_ / 1e6);
  }
  if (share > 0 && share < 1) {
    line += fmt::format("  {} left", TimeLeft(Seconds(now - start_) * (1 - share) / share));
  }
  std::fputs(line.c_str(), out_);
  std::fflush(out_);
  last_drawn_ = now;
  drawn_ = true;
}

void Progress::Update(int64_t done, int64_t total) {
  done_ = done;
  total_ = total;
  if (!is_terminal_ || finished_) return;
  const Clock::time_point now = Clock::now();
  if (!drawn_ || now - last_drawn_ >= kRedrawInterval) Draw(now);
}

void Progress::Clear() {
  if (!is_terminal_ || !drawn_) return;
  std::fputs(kClearLine, out_);
  std::fflush(out_);
  drawn_ = false;
}

void Progress::Finish() {
  if (!enabled_ || finished_) return;
  finished_ = true;
  const double seconds = Seconds(Clock::now() - start_);
  const std::string amount =
      amount_ == Amount::kMegabytes ? fmt::format("{:.0f} MB", done_ / 1e6) : "done";
  const std::string line = fmt::format("{}{}: {} in {:.2f} s\n", is_terminal_ ? kClearLine : "",
                                       title_, amount, seconds);
  std::fputs(line.c_str(), out_);
  std::fflush(out_);
}

}  // namespace thermocline
