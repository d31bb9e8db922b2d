// Text from files and peers, quoted for a message of one line.
#include "common/util/printable.h"

#include <fmt/format.h>

#include "absl/strings/escaping.h"

namespace thermocline {

std::string Quoted(const std::string& text) {
  constexpr size_t kMaxBytes = 80;
  const bool cut = text.size() > kMaxBytes;
  return fmt::format("'{}{}'", absl::CHexEscape(text.substr(0, kMaxBytes)), cut ? "..." : "");
}

}  // namespace thermocline
