// Finds stop texts in a stream of text and holds back what may be the start of one.
#pragma once

#include <string>
#include <vector>

namespace thermocline {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Returns the text that can be shown now. Once a stop text is complete, what comes before the
  // first one is shown, matched() is true, and nothing more comes out.
  std::string Push(const std::string& text);
  std::string Flush();  // what was held back, when the text ends without a stop text
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;  // none is empty
  std::string held_;                // a proper prefix of some stop text
  bool matched_ = false;
};

}  // namespace thermocline
