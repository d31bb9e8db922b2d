// Where characters end in UTF-8 text; knows nothing of what the characters are.
#pragma once

#include <cstddef>
#include <string_view>

namespace thermocline {

struct Utf8Unit {
  enum Kind {
    kCharacter,  // one well-formed character
    kInvalid,    // bytes that no continuation makes a character
    kCut,        // the text ends inside what may still become a character
  };
  Kind kind;
  size_t n_bytes;  // >= 1
};

// The first unit of `text`, which must not be empty. Ill-formed text is divided into maximal
// subparts (Unicode 15, section 3.9, "U+FFFD Substitution of Maximal Subparts"; the WHATWG Encoding
// Standard's decoder does the same): one U+FFFD stands for each kInvalid unit.
Utf8Unit NextUtf8(std::string_view text);

}  // namespace thermocline
