// Finds tokens that stand in text by their name ("<s>", "<|im_end|>") before a tokenizer cuts the
// rest. Knows nothing of how the rest is cut.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/model/vocabulary.h"

namespace thermocline {

// A special token (token >= 0, text is its name) or text between them (token -1).
struct TextFragment {
  std::string_view text;
  int32_t token;
};

class SpecialTokens {
 public:
  // `vocabulary` must outlive this.
  explicit SpecialTokens(const Vocabulary& vocabulary);

  // The whole of `text`, in order, without empty fragments. User-defined tokens are always found,
  // control and unknown tokens only if `parse_special`. Longer names are found before shorter
  // ones wherever they stand, among equally long ones the leftmost.
  std::vector<TextFragment> Split(std::string_view text, bool parse_special) const;

 private:
  struct Length {
    size_t n_bytes;
    bool first_bytes[256];  // with which a name of this length begins: most text is told by it
  };
  struct Name {
    int32_t token;
    bool is_user_defined;
  };
  void SplitAt(const Length& length, const TextFragment& fragment, bool parse_special,
               std::vector<TextFragment>* out) const;

  std::vector<Length> lengths_;  // longest first
  std::unordered_map<std::string_view, Name> names_;
};

}  // namespace thermocline
