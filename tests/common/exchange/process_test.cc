// The exchange between real processes: a child attaches the descriptor that it inherited.
#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>

#include "common/exchange/shm_exchange.h"
#include "common/exchange/step_driver.h"
#include "gtest/gtest.h"
#include "tests/common/exchange/fake_rank.h"

namespace thermocline {
namespace {

constexpr uint32_t kEpoch = 3;
constexpr int kShutdownExit = 17;  // of a child whose exchange ended with Cancelled
constexpr int kFailedExit = 18;    // with Unavailable

ExchangeShape Shape() {
  return {.n_ranks = 3,
          .max_tokens = 4,
          .d_model = 64,
          .n_layers = 3,
          .n_vocab = 50,
          .max_logit_rows = 2};
}

// Forks a rank that attaches `fd` as a process of its own would.
pid_t StartRank(const testing::FakeRank& rank, int fd) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  auto segment = Segment::Attach(dup(fd), rank.shape, kEpoch);
  if (!segment.ok()) _exit(1);
  ShmExchange exchange(segment->get(), rank.rank, rank.vocab_begin);
  switch (rank.Run(exchange).code()) {
    case absl::StatusCode::kCancelled:
      _exit(kShutdownExit);
    case absl::StatusCode::kUnavailable:
      _exit(kFailedExit);
    default:
      _exit(2);
  }
}

int WaitForExit(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::set<std::string> SharedMemoryNames() {
  std::set<std::string> names;
  DIR* folder = opendir("/dev/shm");
  if (folder == nullptr) return names;
  while (dirent* entry = readdir(folder)) names.insert(entry->d_name);
  closedir(folder);
  return names;
}

void FillX(StepDriver& driver, int64_t n_tokens) {
  for (int64_t i = 0; i < n_tokens * Shape().d_model; ++i) {
    driver.x()[i] = testing::EmbeddingValue(driver.steps() + 1, i);
  }
}

TEST(ProcessTest, SumsBetweenProcessesAreInRankOrderToTheBit) {
  for (uint32_t spin_us : {0u, 20u}) {
    auto segment = Segment::Create(Shape(), kEpoch, spin_us).value();
    std::vector<pid_t> pids;
    for (int32_t rank = 0; rank < 3; ++rank) {
      pids.push_back(StartRank(testing::MakeFakeRank(Shape(), rank), segment->fd()));
    }
    StepDriver driver(segment.get());
    for (int step = 0; step < 300; ++step) {
      const int64_t n_tokens = step % 3 == 0 ? 4 : 1;
      FillX(driver, n_tokens);
      ASSERT_EQ(driver.Run(testing::MakeTokens(n_tokens, 1), 1, 20'000), absl::OkStatus());
      const std::vector<float> h = testing::ExpectedH(Shape(), driver.steps(), n_tokens);
      for (int32_t v = 0; v < Shape().n_vocab; ++v) {
        ASSERT_EQ(driver.logits(0)[v], testing::LogitValue(h, 0, v));
      }
    }
    segment->Stop(StopReason::kShutdown);
    for (pid_t pid : pids) EXPECT_EQ(WaitForExit(pid), kShutdownExit);
  }
}

TEST(ProcessTest, AKilledRankIsNamedAndTheOthersAreToldAndNothingIsLeft) {
  const std::set<std::string> before = SharedMemoryNames();
  auto segment = Segment::Create(Shape(), kEpoch, 0).value();
  testing::FakeRank doomed = testing::MakeFakeRank(Shape(), 2);
  doomed.before_arrival = [](uint64_t step, uint32_t exchange) {
    if (step == 2 && exchange == 4) kill(getpid(), SIGKILL);
  };
  const pid_t rank0 = StartRank(testing::MakeFakeRank(Shape(), 0), segment->fd());
  const pid_t rank1 = StartRank(testing::MakeFakeRank(Shape(), 1), segment->fd());
  const pid_t rank2 = StartRank(doomed, segment->fd());
  StepDriver driver(segment.get());
  FillX(driver, 1);
  ASSERT_EQ(driver.Run(testing::MakeTokens(1, 1), 1, 20'000), absl::OkStatus());
  FillX(driver, 1);
  const absl::Status status = driver.Run(testing::MakeTokens(1, 1), 1, 300);
  EXPECT_EQ(status.message(), "rank 2 has not arrived in exchange 4 of step 2 for 0.3 s");
  EXPECT_EQ(WaitForExit(rank2), -SIGKILL);
  EXPECT_EQ(WaitForExit(rank0), kFailedExit);
  EXPECT_EQ(WaitForExit(rank1), kFailedExit);
  segment.reset();
  EXPECT_EQ(SharedMemoryNames(), before);
}

TEST(ProcessTest, ARankAsleepWhenItIsKilledDoesNotStopTheSegmentFromEnding) {
  auto segment = Segment::Create(Shape(), kEpoch, 0).value();
  const pid_t sleeper = StartRank(testing::MakeFakeRank(Shape(), 0), segment->fd());
  while (segment->header().posted.sleepers.load() == 0) usleep(1000);
  kill(sleeper, SIGKILL);
  EXPECT_EQ(WaitForExit(sleeper), -SIGKILL);
  const pid_t other = StartRank(testing::MakeFakeRank(Shape(), 1), segment->fd());
  segment->Stop(StopReason::kShutdown);
  EXPECT_EQ(WaitForExit(other), kShutdownExit);
}

}  // namespace
}  // namespace thermocline
