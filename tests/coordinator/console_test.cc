// Lines in, text out, over pipes; signals while waiting.
#include "coordinator/cli/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

class ConsoleTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { StopSignals::Install(); }
  ConsoleTest() {
    EXPECT_EQ(pipe(in_), 0);
    EXPECT_EQ(pipe(out_), 0);
    StopSignals::ClearInterrupts();
  }
  ~ConsoleTest() override {
    for (int fd : {in_[0], in_[1], out_[0], out_[1]}) close(fd);
    StopSignals::ClearInterrupts();
  }
  void Type(const std::string& text) {
    ASSERT_EQ(write(in_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string Printed() {
    char bytes[4096];
    const ssize_t n = read(out_[0], bytes, sizeof bytes);
    return std::string(bytes, n > 0 ? n : 0);
  }
  int in_[2], out_[2];
};

TEST_F(ConsoleTest, LinesComeWithoutTheirNewlineAndThenTheEnd) {
  Console console(in_[0], out_[1], false);
  Type("one\n\nlast");
  close(in_[1]);
  in_[1] = dup(0);
  EXPECT_EQ(**console.ReadLine(), "one");
  EXPECT_EQ(**console.ReadLine(), "");
  EXPECT_EQ(**console.ReadLine(), "last");
  EXPECT_FALSE(console.ReadLine()->has_value());
}

TEST_F(ConsoleTest, ASignalEndsTheWaitForALine) {
  Console console(in_[0], out_[1], false);
  std::thread user([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    std::raise(SIGINT);
  });
  EXPECT_EQ(console.ReadLine().status().code(), absl::StatusCode::kCancelled);
  user.join();
  EXPECT_EQ(StopSignals::interrupts(), 1);
  EXPECT_EQ(StopSignals::ExitCode(), 130);
  StopSignals::ClearInterrupts();
  Type("goes on\n");
  EXPECT_EQ(**console.ReadLine(), "goes on");
}

TEST_F(ConsoleTest, TextIsWrittenAsItIsWhenNoTerminalReads) {
  {
    Console console(in_[0], out_[1], /*color=*/true);
    ASSERT_TRUE(console.SetStyle(Console::Style::kPrompt).ok());
    ASSERT_TRUE(console.Write("plain").ok());
    ASSERT_TRUE(console.FreshLine().ok());
  }
  EXPECT_EQ(Printed(), "plain");
}

TEST_F(ConsoleTest, AClosedPipeIsAnErrorThatStays) {
  Console console(in_[0], out_[1], false);
  close(out_[0]);
  out_[0] = dup(0);
  EXPECT_EQ(console.Write("x").code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(console.Write("").ok());
}

TEST_F(ConsoleTest, AFullDiskIsAnError) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  Console console(in_[0], full, false);
  const absl::Status status = console.Write("x");
  EXPECT_NE(std::string(status.message()).find("No space left"), std::string::npos) << status;
  close(full);
}

}  // namespace
}  // namespace thermocline
