// Backslash sequences, one after the other.
#include "coordinator/cli/escapes.h"

#include <charconv>

namespace thermocline {

std::string Unescape(std::string_view text) {
  constexpr std::string_view kNames = "nrt'\"\\", kValues = "\n\r\t'\"\\";
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    const char name = text[i + 1];
    unsigned value = 0;
    if (const size_t known = kNames.find(name); known != std::string_view::npos) {
      result += kValues[known];
      i += 1;
    } else if (name == 'x' && i + 4 <= text.size() &&
               std::from_chars(&text[i + 2], &text[i] + 4, value, 16).ptr == &text[i] + 4) {
      result += static_cast<char>(value);
      i += 3;
    } else {
      result += '\\';
    }
  }
  return result;
}

}  // namespace thermocline
