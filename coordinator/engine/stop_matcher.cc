// Stop texts by plain search: held text is shorter than the longest stop text, so it stays cheap.
#include "coordinator/engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace thermocline {
namespace {

// Length of the longest proper prefix of `stop` that `text` ends with.
size_t LengthOfStart(const std::string& text, const std::string& stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.compare(text.size() - n, n, stop, 0, n) == 0) return n;
  }
  return 0;
}

}  // namespace

std::string StopMatcher::Push(const std::string& text) {
  if (matched_) return "";
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  size_t shown = first;
  if (first == std::string::npos) {
    size_t kept = 0;
    for (const std::string& stop : stops_) kept = std::max(kept, LengthOfStart(held_, stop));
    shown = held_.size() - kept;
  } else {
    matched_ = true;
  }
  std::string result = held_.substr(0, shown);
  held_.erase(0, matched_ ? held_.size() : shown);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace thermocline
