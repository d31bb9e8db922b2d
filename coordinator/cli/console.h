// Standard output and input of a conversation: text with styles out, lines in. Knows nothing of
// models.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace thermocline {

class Console {
 public:
  enum class Style { kPlain, kPrompt, kInput };

  // color: styles show, if `out_fd` is a terminal.
  Console(int in_fd, int out_fd, bool color);
  ~Console();  // leaves the terminal in the plain style

  // Writes at once. After the first failure nothing more is written and every call fails.
  absl::Status Write(std::string_view text);
  absl::Status SetStyle(Style style);
  // On a terminal, moves to a fresh line unless it is on one.
  absl::Status FreshLine();

  // The next line without its newline; nothing at the end of the input. Cancelled when a signal
  // comes first (StopSignals).
  absl::StatusOr<std::optional<std::string>> ReadLine();

 private:
  absl::Status WriteBytes(std::string_view bytes);

  const int in_fd_, out_fd_;
  const bool is_terminal_, color_;
  Style style_ = Style::kPlain;
  bool at_line_start_ = true;
  absl::Status write_status_;
  std::string pending_;  // input read beyond the last line
  bool at_end_ = false;
};

}  // namespace thermocline
