// Writes styled bytes to a terminal or a file, reads lines until a signal comes.
#include "coordinator/cli/console.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/util/status_macros.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

// Colours as llama.cpp's users know them: the prompt yellow, their own input bold green.
std::string_view Escape(Console::Style style) {
  switch (style) {
    case Console::Style::kPrompt:
      return "\x1b[33m";
    case Console::Style::kInput:
      return "\x1b[1m\x1b[32m";
    case Console::Style::kPlain:
      break;
  }
  return "\x1b[0m";
}

}  // namespace

Console::Console(int in_fd, int out_fd, bool color)
    : in_fd_(in_fd),
      out_fd_(out_fd),
      is_terminal_(isatty(out_fd) == 1),
      color_(color && is_terminal_) {}

Console::~Console() { SetStyle(Style::kPlain).IgnoreError(); }

absl::Status Console::WriteBytes(std::string_view bytes) {
  while (write_status_.ok() && !bytes.empty()) {
    const ssize_t written = write(out_fd_, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno == EINTR) {
      if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
    } else if (written < 0 && errno == EAGAIN) {  // someone made the pipe non-blocking
      pollfd out = {.fd = out_fd_, .events = POLLOUT, .revents = 0};
      poll(&out, 1, -1);
    } else if (written < 0) {
      write_status_ = absl::UnavailableError(
          fmt::format("can't write to standard output: {}", std::strerror(errno)));
    }
  }
  return write_status_;
}

absl::Status Console::Write(std::string_view text) {
  if (!text.empty()) at_line_start_ = text.back() == '\n';
  return WriteBytes(text);
}

absl::Status Console::SetStyle(Style style) {
  if (!color_ || style == style_) return write_status_;
  style_ = style;
  return WriteBytes(Escape(style));
}

absl::Status Console::FreshLine() {
  return is_terminal_ && !at_line_start_ ? Write("\n") : write_status_;
}

absl::StatusOr<std::optional<std::string>> Console::ReadLine() {
  for (;;) {
    if (const size_t newline = pending_.find('\n'); newline != std::string::npos) {
      std::string line = pending_.substr(0, newline);
      pending_.erase(0, newline + 1);
      if (isatty(in_fd_) == 1) at_line_start_ = true;  // the terminal has echoed it
      return line;
    }
    if (at_end_) {
      if (pending_.empty()) return std::nullopt;
      return std::exchange(pending_, {});
    }
    pollfd fds[2] = {{.fd = in_fd_, .events = POLLIN, .revents = 0},
                     {.fd = StopSignals::wake_fd(), .events = POLLIN, .revents = 0}};
    if (StopSignals::stop()) return absl::CancelledError("stopped by a signal");
    if (poll(fds, 2, -1) < 0 || fds[0].revents == 0) continue;  // a signal: seen above
    char bytes[4096];
    const ssize_t n = read(in_fd_, bytes, sizeof bytes);
    if (n > 0) {
      pending_.append(bytes, static_cast<size_t>(n));
    } else if (n == 0) {
      at_end_ = true;
    } else if (errno != EINTR && errno != EAGAIN) {
      return absl::UnavailableError(
          fmt::format("can't read standard input: {}", std::strerror(errno)));
    }
  }
}

}  // namespace thermocline
