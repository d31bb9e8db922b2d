// Well-formed byte sequences as in table 3-7 of the Unicode standard.
#include "common/util/utf8.h"

#include <cstdint>

#include "common/util/check.h"

namespace thermocline {
namespace {

struct Lead {
  size_t n_bytes;                  // of the whole character; 0: no character begins so
  uint8_t second_min, second_max;  // overlong forms, surrogates and > U+10FFFF fall outside
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit NextUtf8(std::string_view text) {
  THERMOCLINE_CHECK(!text.empty());
  const Lead lead = LeadOf(static_cast<uint8_t>(text[0]));
  if (lead.n_bytes == 0) return {Utf8Unit::kInvalid, 1};
  for (size_t i = 1; i < lead.n_bytes; ++i) {
    if (i == text.size()) return {Utf8Unit::kCut, i};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xbf;
    if (byte < min || byte > max) return {Utf8Unit::kInvalid, i};
  }
  return {Utf8Unit::kCharacter, lead.n_bytes};
}

}  // namespace thermocline
