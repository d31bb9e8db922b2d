// Text in error messages stays on one line.
#include "common/util/printable.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

TEST(Quoted, LeavesPlainTextAlone) { EXPECT_EQ(Quoted("blk.0.ffn_up"), "'blk.0.ffn_up'"); }

TEST(Quoted, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(Quoted("a\nb\r\t'"), "'a\\nb\\r\\t\\''");
  EXPECT_EQ(Quoted(std::string("\x1b[0m\0", 5)), "'\\x1b[0m\\x00'");
  EXPECT_EQ(Quoted("\xc3\xa9"), "'\\xc3\\xa9'");
}

TEST(Quoted, CutsLongText) {
  EXPECT_EQ(Quoted(std::string(80, 'x')), "'" + std::string(80, 'x') + "'");
  EXPECT_EQ(Quoted(std::string(81, 'x')), "'" + std::string(80, 'x') + "...'");
}

}  // namespace
}  // namespace thermocline
