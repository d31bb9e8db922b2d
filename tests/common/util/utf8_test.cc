// Units of well-formed and ill-formed UTF-8.
#include "common/util/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace thermocline {
namespace {

void ExpectUnit(std::string_view text, Utf8Unit::Kind kind, size_t n_bytes) {
  const Utf8Unit unit = NextUtf8(text);
  EXPECT_EQ(unit.kind, kind) << ::testing::PrintToString(text);
  EXPECT_EQ(unit.n_bytes, n_bytes) << ::testing::PrintToString(text);
}

std::string Utf8Of(uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0 | (code >> 6)), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | (code >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | (code >> 18)), tail(12), tail(6), tail(0)};
}

TEST(Utf8Test, EveryCodePointButSurrogatesIsACharacter) {
  for (uint32_t code = 0; code < 0x120000; ++code) {
    const std::string text = Utf8Of(code);
    const Utf8Unit unit = NextUtf8(text + "x");
    const bool is_character = (code < 0xd800 || code > 0xdfff) && code < 0x110000;
    ASSERT_EQ(unit.kind == Utf8Unit::kCharacter, is_character) << code;
    ASSERT_EQ(unit.n_bytes, is_character ? text.size() : 1) << code;
  }
}

TEST(Utf8Test, IllFormedTextIsDividedIntoMaximalSubparts) {
  ExpectUnit("\x80", Utf8Unit::kInvalid, 1);
  ExpectUnit("\xc0\xaf", Utf8Unit::kInvalid, 1);          // overlong
  ExpectUnit("\xe0\x80\xaf", Utf8Unit::kInvalid, 1);      // overlong
  ExpectUnit("\xf4\x90\x80\x80", Utf8Unit::kInvalid, 1);  // beyond U+10FFFF
  ExpectUnit("\xff", Utf8Unit::kInvalid, 1);
  ExpectUnit("\xe2\x82(", Utf8Unit::kInvalid, 2);
  ExpectUnit("\xf0\x9f\x98x", Utf8Unit::kInvalid, 3);
  ExpectUnit("\xf0\x9f\xc3\xa9", Utf8Unit::kInvalid, 2);
}

TEST(Utf8Test, WhatMayStillBecomeACharacterIsCut) {
  ExpectUnit("\xc3", Utf8Unit::kCut, 1);
  ExpectUnit("\xe2\x82", Utf8Unit::kCut, 2);
  ExpectUnit("\xf0\x9f\x98", Utf8Unit::kCut, 3);
}

}  // namespace
}  // namespace thermocline
