// One pass over the text for each length that names have, longest first.
#include "common/model/special_tokens.h"

#include <functional>
#include <map>

namespace thermocline {

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) {
  std::map<size_t, Length, std::greater<>> lengths;
  for (int64_t id = 0; id < vocabulary.size(); ++id) {
    const TokenKind kind = vocabulary.kinds[id];
    const std::string& text = vocabulary.texts[id];
    const bool is_user_defined = kind == TokenKind::kUserDefined;
    if (!is_user_defined && kind != TokenKind::kControl && kind != TokenKind::kUnknown) continue;
    if (text.empty()) continue;
    names_[text] = {static_cast<int32_t>(id), is_user_defined};
    Length& length = lengths[text.size()];
    length.n_bytes = text.size();
    length.first_bytes[static_cast<uint8_t>(text[0])] = true;
  }
  for (const auto& [n_bytes, length] : lengths) lengths_.push_back(length);
}

void SpecialTokens::SplitAt(const Length& length, const TextFragment& fragment, bool parse_special,
                            std::vector<TextFragment>* out) const {
  const std::string_view text = fragment.text;
  size_t begin = 0;  // of the text that is not yet in *out
  for (size_t i = 0; i + length.n_bytes <= text.size();) {
    const std::string_view candidate = text.substr(i, length.n_bytes);
    const auto name =
        length.first_bytes[static_cast<uint8_t>(text[i])] ? names_.find(candidate) : names_.end();
    if (name == names_.end() || !(parse_special || name->second.is_user_defined)) {
      ++i;
      continue;
    }
    if (i > begin) out->push_back({text.substr(begin, i - begin), -1});
    out->push_back({candidate, name->second.token});
    i += length.n_bytes;
    begin = i;
  }
  if (begin < text.size()) out->push_back({text.substr(begin), -1});
}

std::vector<TextFragment> SpecialTokens::Split(std::string_view text, bool parse_special) const {
  std::vector<TextFragment> fragments, next;
  if (!text.empty()) fragments.push_back({text, -1});
  for (const Length& length : lengths_) {
    next.clear();
    for (const TextFragment& fragment : fragments) {
      if (fragment.token >= 0) {
        next.push_back(fragment);
      } else {
        SplitAt(length, fragment, parse_special, &next);
      }
    }
    fragments.swap(next);
  }
  return fragments;
}

}  // namespace thermocline
