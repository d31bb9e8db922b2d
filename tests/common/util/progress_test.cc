// When the bar writes, and what: a terminal sees redraws, a file sees one line.
#include "common/util/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <algorithm>

namespace thermocline {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ReadAll(FILE* file) {
  std::string text(4096, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  return text;
}

TEST(ProgressTest, FileGetsOneLineAtTheEnd) {
  FILE* file = std::tmpfile();
  Progress progress("loading", file, true);
  progress.Update(1, 2'000'000);
  progress.Update(2'000'000, 2'000'000);
  EXPECT_EQ(ReadAll(file), "");
  progress.Finish();
  progress.Finish();
  const std::string text = ReadAll(file);
  EXPECT_THAT(text, StartsWith("loading: 2 MB in "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  std::fclose(file);
}

TEST(ProgressTest, DisabledWritesNothing) {
  FILE* file = std::tmpfile();
  Progress progress("loading", file, false);
  progress.Update(1, 2);
  progress.Finish();
  EXPECT_EQ(ReadAll(file), "");
  std::fclose(file);
}

class ProgressTerminalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int slave = -1;
    ASSERT_EQ(openpty(&master_, &slave, nullptr, nullptr, nullptr), 0);
    terminal_ = fdopen(slave, "w");
  }
  // Everything that was written to the terminal, which closes with this: its end is the only sure
  // sign that all of it has come through.
  std::string Seen() {
    std::fclose(terminal_);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(master_, buffer, sizeof(buffer))) > 0;) text.append(buffer, n);
    close(master_);
    return text;
  }
  int master_ = -1;
  FILE* terminal_ = nullptr;
};

TEST_F(ProgressTerminalTest, ManyUpdatesAreFewRedraws) {
  {
    Progress progress("loading", terminal_, true);
    // Few enough for the terminal's buffer, should every one of them be drawn.
    for (int i = 1; i <= 40; ++i) progress.Update(i * 100'000, 10'000'000);
    progress.Finish();
  }
  const std::string text = Seen();
  const auto redraws =
      std::count(text.begin(), text.end(), '[') / 2;  // one in ESC[K, one of the bar
  EXPECT_GE(redraws, 1);
  EXPECT_LE(redraws, 20) << "40 updates take far less than two seconds";
  EXPECT_THAT(text, HasSubstr(" of 10 MB"));
  EXPECT_THAT(text, HasSubstr("left"));
  EXPECT_THAT(text, HasSubstr("loading: 4 MB in "));
}

TEST_F(ProgressTerminalTest, UnfinishedBarEndsItsLine) {
  {
    Progress progress("loading", terminal_, true);
    progress.Update(1, 4);
  }
  const std::string text = Seen();
  EXPECT_THAT(text, HasSubstr(" 25 %"));
  EXPECT_EQ(text.back(), '\n');
}

TEST_F(ProgressTerminalTest, UnknownTotalIsNoDivision) {
  {
    Progress progress("loading", terminal_, true);
    progress.Update(0, 0);
  }
  EXPECT_THAT(Seen(), HasSubstr("  0 %"));
}

}  // namespace
}  // namespace thermocline
