// Escape sequences of -p.
#include "coordinator/cli/escapes.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

TEST(Unescape, KnownSequencesBecomeTheirCharacters) {
  EXPECT_EQ(Unescape(R"(a\nb\tc\rd\\e\'f\"g)"), "a\nb\tc\rd\\e'f\"g");
}

TEST(Unescape, HexNeedsTwoDigits) {
  EXPECT_EQ(Unescape(R"(\x41\xc3\xA9)"), "A\xC3\xA9");
  EXPECT_EQ(Unescape(R"(\x4)"), R"(\x4)");
  EXPECT_EQ(Unescape(R"(\xg1 \x+1 \x)"), R"(\xg1 \x+1 \x)");
}

TEST(Unescape, OtherBackslashesStay) {
  EXPECT_EQ(Unescape(R"(\d \)"), R"(\d \)");
  EXPECT_EQ(Unescape(R"(\\n)"), R"(\n)");
  EXPECT_EQ(Unescape(""), "");
}

}  // namespace
}  // namespace thermocline
