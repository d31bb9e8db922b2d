// Fleets of real worker processes: results over both carriers, and what happens when a process
// dies or hangs in the middle of a token.
#include "coordinator/engine/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "common/rpc/channel.h"
#include "common/util/version.h"
#include "fmt/format.h"
#include "proto/worker.grpc.pb.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// As every program does it first.
class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

const char* const kModel = THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.gguf";

FleetOptions Options() {
  FleetOptions options;
  options.model_path = kModel;
  options.worker_binary = THERMOCLINE_BIN_DIR "/cpu_worker";
  options.n_threads = 2;
  options.max_logit_rows = 64;
  options.n_ctx = 256;
  return options;
}

std::unique_ptr<Fleet> Start(const FleetOptions& options) {
  auto fleet = Fleet::Start(options, nullptr, nullptr);
  EXPECT_TRUE(fleet.ok()) << fleet.status();
  return fleet.ok() ? *std::move(fleet) : nullptr;
}

std::vector<TokenInput> Prompt() {
  std::vector<TokenInput> tokens;
  for (int32_t i = 0; i < 40; ++i) tokens.push_back({i == 0 ? 1 : 300 + 17 * i, 0, i, true});
  return tokens;
}

std::vector<float> Logits(Fleet& fleet) {
  const absl::Status status = fleet.Run(Prompt());
  EXPECT_TRUE(status.ok()) << status;
  std::vector<float> logits;
  for (int32_t row = 0; status.ok() && row < 40; ++row) {
    const float* values = fleet.logits(row);
    logits.insert(logits.end(), values, values + fleet.model().config().n_vocab);
  }
  return logits;
}

// Processes of this user that run cpu_worker and are children of `parent`.
std::vector<pid_t> WorkersOf(pid_t parent) {
  std::vector<pid_t> pids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "stat");
    std::string line;
    std::getline(file, line);
    const size_t end = line.rfind(')');
    if (end == std::string::npos || line.find("(cpu_worker)") == std::string::npos) continue;
    char state;
    int ppid;
    if (std::sscanf(line.c_str() + end + 1, " %c %d", &state, &ppid) == 2 && ppid == parent) {
      pids.push_back(std::stoi(name));
    }
  }
  return pids;
}

bool IsRunning(pid_t pid) { return kill(pid, 0) == 0; }

bool EndsWithin(const std::vector<pid_t>& pids, std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  while (Clock::now() < deadline) {
    if (std::none_of(pids.begin(), pids.end(), IsRunning)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(Fleet, CarriersWorkersAndThreadsOfOnePlanGiveTheSameBits) {
  for (const int64_t n_workers : {1, 2, 3}) {
    FleetOptions options = Options();
    options.n_workers = n_workers;
    options.n_threads = n_workers;
    options.transport = "shm";
    const std::vector<float> expected = Logits(*Start(options));
    options.transport = "grpc";
    EXPECT_EQ(Logits(*Start(options)), expected) << n_workers << " workers";
    options.batch_size = 7;
    options.max_logit_rows = 7;
    const auto fleet = Start(options);  // the prompt in steps of 7
    std::vector<float> cut;
    const std::vector<TokenInput> prompt = Prompt();
    for (size_t begin = 0; begin < prompt.size(); begin += 7) {
      const size_t n = std::min<size_t>(7, prompt.size() - begin);
      ASSERT_TRUE(fleet->Run(absl::MakeConstSpan(prompt).subspan(begin, n)).ok());
      for (size_t row = 0; row < n; ++row) {
        const float* values = fleet->logits(static_cast<int32_t>(row));
        cut.insert(cut.end(), values, values + fleet->model().config().n_vocab);
      }
    }
    EXPECT_EQ(cut, expected) << n_workers << " workers, in steps of 7";
  }
}

// One session greedy, another one with all its logits: alone, and together in one step.
TEST(Fleet, TheBestTokenIsThatOfWholeRowsInAnyCompany) {
  FleetOptions options = Options();
  options.n_workers = options.n_slots = 2;
  for (const char* transport : {"shm", "grpc"}) {
    options.transport = transport;
    const auto fleet = Start(options);
    ASSERT_NE(fleet, nullptr);
    const int64_t n_vocab = fleet->model().config().n_vocab;
    const auto run = [&](std::vector<TokenInput> tokens) {
      const absl::Status status = fleet->Run(tokens);
      ASSERT_TRUE(status.ok()) << status;
    };
    int32_t token = 1;
    for (int32_t position = 0; position < 6; ++position) {
      const TokenInput whole = {token, 0, position, true},
                       other = {7 + position, 1, position, true};
      TokenInput greedy = whole;
      greedy.needs_only_best = true;
      run({whole, other});
      const int32_t expected = BestOf(fleet->logits(0), n_vocab).token;
      const std::vector<float> of_other(fleet->logits(1), fleet->logits(1) + n_vocab);
      run({greedy, other});
      EXPECT_EQ(fleet->best(0), expected) << transport << ", position " << position;
      EXPECT_EQ(std::vector<float>(fleet->logits(1), fleet->logits(1) + n_vocab), of_other);
      run({greedy});
      EXPECT_EQ(fleet->best(0), expected) << transport << ", alone, position " << position;
      token = expected;
    }
  }
}

// A file may have rows for more tokens than there are, to round their number up.
TEST(Fleet, TheBestTokenIsNoneThatTheVocabularyLacks) {
  TinyLlama model;
  model.n_vocab = 640;
  model.n_padding = 320;
  FleetOptions options = Options();
  options.model_path = ::testing::TempDir() + fmt::format("padded.{}.gguf", getpid());
  const Bytes bytes = model.Builder().Build();
  std::ofstream(options.model_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  options.n_ctx = 64;
  const auto fleet = Start(options);
  std::filesystem::remove(options.model_path);
  ASSERT_NE(fleet, nullptr);
  bool is_padding_ever_better = false;
  for (int32_t position = 0; position < 8; ++position) {
    TokenInput token = {3 + 30 * position, 0, position, true};
    ASSERT_TRUE(fleet->Run(absl::MakeConstSpan(&token, 1)).ok());
    const int32_t expected = BestOf(fleet->logits(0), 320).token;
    is_padding_ever_better |= BestOf(fleet->logits(0), 640).token != expected;
    token.needs_only_best = true;
    ASSERT_TRUE(fleet->Run(absl::MakeConstSpan(&token, 1)).ok());
    EXPECT_EQ(fleet->best(0), expected);
  }
  EXPECT_TRUE(is_padding_ever_better);
}

TEST(Fleet, StatsTellTheCarrierAndWhereWeightsLie) {
  FleetOptions options = Options();
  options.n_workers = 2;
  for (const char* transport : {"shm", "grpc"}) {
    options.transport = transport;
    const auto fleet = Start(options);
    Logits(*fleet);
    const auto stats = fleet->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    ASSERT_EQ(stats->size(), 2u);
    int64_t weight_bytes = 0;
    for (const auto& worker : *stats) {
      EXPECT_EQ(worker.carrier(), transport);
      EXPECT_EQ(worker.steps(), 1u);
      ASSERT_EQ(worker.weight_ranges_size(), 1);
      EXPECT_GE(worker.weight_ranges(0).end() - worker.weight_ranges(0).begin(),
                static_cast<uint64_t>(worker.weight_bytes()));
      weight_bytes += worker.weight_bytes();
    }
    EXPECT_LT(weight_bytes, 1.05 * std::filesystem::file_size(kModel));
  }
}

// A cpu_worker that listens on a Unix socket.
class ListeningWorker {
 public:
  ListeningWorker() : path_(fmt::format("/tmp/thermocline_fleet_test.{}.sock", getpid())) {
    pid_ = fork();
    if (pid_ != 0) return;
    const std::string listen = "--listen=" + address();
    execl(THERMOCLINE_BIN_DIR "/cpu_worker", "cpu_worker", listen.c_str(), nullptr);
    _exit(127);
  }
  ~ListeningWorker() {
    if (pid_ > 0) End(SIGKILL);
    std::filesystem::remove(path_);
  }
  std::string address() const { return "unix:" + path_; }
  // Its wait status.
  int End(int signal) {
    int status = 0;
    kill(pid_, signal);
    waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }

 private:
  std::string path_;
  pid_t pid_ = -1;
};

// A plan file for two workers, the second one at this address.
class PlanFile {
 public:
  explicit PlanFile(const std::string& address)
      : path_(fmt::format("/tmp/thermocline_fleet_test.{}.json", getpid())) {
    FleetOptions options = Options();
    options.n_workers = 2;
    Plan plan = Start(options)->plan();
    plan.ranks[1].address = address;
    EXPECT_TRUE(WritePlan(plan, path_).ok());
  }
  ~PlanFile() { std::filesystem::remove(path_); }
  FleetOptions FleetOf() const {
    FleetOptions options = Options();
    options.plan_path = path_;
    return options;
  }

 private:
  std::string path_;
};

TEST(Fleet, WorkersOnAnAddressJoinByThePlan) {
  ListeningWorker worker;
  FleetOptions options = Options();
  options.n_workers = 2;
  const std::vector<float> expected = Logits(*Start(options));
  const PlanFile plan(worker.address());
  for (int round = 0; round < 2; ++round) {  // the worker serves one fleet after another
    EXPECT_EQ(Logits(*Start(plan.FleetOf())), expected);
  }
  const int status = worker.End(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Fleet, AnIdleWorkerOnAnAddressThatDiesIsMissed) {
  ListeningWorker worker;
  const PlanFile plan(worker.address());
  const auto fleet = Start(plan.FleetOf());
  ASSERT_TRUE(fleet->Run(Prompt()).ok());
  std::this_thread::sleep_for(std::chrono::seconds(1));  // some looks at a connection that stands
  ASSERT_TRUE(fleet->state().ok()) << fleet->state();
  const Clock::time_point killed = Clock::now();
  worker.End(SIGKILL);
  while (fleet->state().ok() && Clock::now() - killed < std::chrono::seconds(8)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(fleet->state().message(),
            fmt::format("worker 1 ({}) is lost: the connection to it ended", worker.address()));
  RecordProperty("noticed_ms",
                 static_cast<int>((Clock::now() - killed) / std::chrono::milliseconds(1)));
}

class Failure : public ::testing::TestWithParam<const char*> {
 protected:
  FleetOptions TwoWorkers() {
    FleetOptions options = Options();
    options.n_workers = 2;
    options.transport = GetParam();
    return options;
  }
  // Runs steps until one fails; the error, or OK after a minute.
  absl::Status RunUntilFailure(Fleet& fleet) {
    const Clock::time_point deadline = Clock::now() + std::chrono::minutes(1);
    while (Clock::now() < deadline) {
      const absl::Status status = fleet.Run(Prompt());
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
};

TEST_P(Failure, AWorkerKilledInTheMiddleOfATokenFailsTheRequestAndIsNamed) {
  const auto fleet = Start(TwoWorkers());
  const std::vector<pid_t> workers = WorkersOf(getpid());
  ASSERT_EQ(workers.size(), 2u);
  Clock::time_point killed;
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    killed = Clock::now();
    kill(workers[1], SIGKILL);
  });
  const absl::Status status = RunUntilFailure(*fleet);
  killer.join();
  EXPECT_LT(Clock::now() - killed, std::chrono::seconds(3));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(fmt::format("(process {}) was killed by signal 9", workers[1])));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Tokenize"));  // what it can still do
  EXPECT_EQ(fleet->Run(Prompt()).message(), status.message());
  EXPECT_FALSE(fleet->state().ok());
}

TEST_P(Failure, AWorkerThatHangsFailsTheRequestWithinTheDeadlineAndIsNamed) {
  FleetOptions options = TwoWorkers();
  options.stall_timeout_ms = 500;
  auto fleet = Start(options);
  const std::vector<pid_t> workers = WorkersOf(getpid());
  ASSERT_EQ(workers.size(), 2u);
  ASSERT_TRUE(fleet->Run(Prompt()).ok());
  kill(workers[0], SIGSTOP);
  const Clock::time_point stopped = Clock::now();
  const absl::Status status = RunUntilFailure(*fleet);
  EXPECT_LT(Clock::now() - stopped, std::chrono::seconds(3));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(fmt::format("(process {})", workers[0])));
  EXPECT_THAT(std::string(status.message()), HasSubstr("no progress"));
  fleet.reset();
  EXPECT_TRUE(EndsWithin(workers, std::chrono::milliseconds(100)));  // it was waited for
}

TEST_P(Failure, AKilledCoordinatorLeavesNoWorkerAndNoSharedMemory) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t coordinator = fork();
  if (coordinator == 0) {
    // A coordinator in the middle of tokens, until it is killed. Started anew, as gRPC does not
    // live through a fork.
    dup2(ready[1], 3);
    setenv("THERMOCLINE_TO_BE_KILLED", GetParam(), 1);
    execl("/proc/self/exe", "fleet_test", "--gtest_filter=CoordinatorToBeKilled.*",
          "--gtest_also_run_disabled_tests", nullptr);
    _exit(127);
  }
  close(ready[1]);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  const std::vector<pid_t> workers = WorkersOf(coordinator);
  ASSERT_EQ(workers.size(), 2u);
  kill(coordinator, SIGKILL);
  int status = 0;
  waitpid(coordinator, &status, 0);
  EXPECT_TRUE(EndsWithin(workers, std::chrono::seconds(3)));
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    EXPECT_EQ(entry.path().string().find("thermocline"), std::string::npos) << entry.path();
  }
}

INSTANTIATE_TEST_SUITE_P(Carriers, Failure, ::testing::Values("shm", "grpc"),
                         [](const auto& info) { return std::string(info.param); });

// Not a test by itself: the process that the one above kills.
TEST(CoordinatorToBeKilled, DISABLED_RunsStepsForever) {
  const char* transport = std::getenv("THERMOCLINE_TO_BE_KILLED");
  if (transport == nullptr) return;
  FleetOptions options = Options();
  options.n_workers = 2;
  options.transport = transport;
  const auto fleet = Start(options);
  for (int step = 0;; ++step) {
    ASSERT_TRUE(fleet->Run(Prompt()).ok());
    if (step == 3) {
      ASSERT_EQ(write(3, "r", 1), 1);
    }
  }
}

TEST(FleetStart, ErrorsNameTheThing) {
  const auto error = [](const FleetOptions& options) {
    const auto fleet = Fleet::Start(options, nullptr, nullptr);
    EXPECT_FALSE(fleet.ok());
    return std::string(fleet.status().message());
  };
  FleetOptions options = Options();
  options.model_path = "/no/such/model.gguf";
  EXPECT_THAT(error(options), HasSubstr("/no/such/model.gguf"));
  options = Options();
  options.worker_binary = "/no/such/cpu_worker";
  EXPECT_THAT(error(options), HasSubstr("/no/such/cpu_worker"));
  options = Options();
  options.worker_binary = "/bin/false";  // ends at once
  EXPECT_THAT(error(options), HasSubstr("exited with code 1"));
  options = Options();
  options.plan_path = "/no/such/plan.json";
  EXPECT_THAT(error(options), HasSubstr("/no/such/plan.json"));
  options = Options();
  options.hidden_activation = "tanh";
  EXPECT_THAT(error(options), HasSubstr("tanh"));
  options = Options();
  options.n_threads = 1;
  options.n_workers = 2;
  EXPECT_THAT(error(options), HasSubstr("1 threads for 2 workers"));
  options = Options();
  options.n_ctx = 1 << 24;
  options.batch_size = 16;
  options.n_slots = 4096;
  EXPECT_THAT(error(options), HasSubstr("workspace take"));
}

TEST(FleetStart, CanBeCancelledWhileLoading) {
  const std::atomic<bool> cancelled = true;
  const auto fleet = Fleet::Start(Options(), nullptr, &cancelled);
  EXPECT_TRUE(absl::IsCancelled(fleet.status())) << fleet.status();
  EXPECT_TRUE(WorkersOf(getpid()).empty());
}

// Starts a fleet and cancels that after 200 ms; expects it to end soon after.
void ExpectCancellable(const FleetOptions& options) {
  std::atomic<bool> cancelled = false;
  Clock::time_point asked;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    asked = Clock::now();
    cancelled = true;
  });
  const auto fleet = Fleet::Start(options, nullptr, &cancelled);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(fleet.status())) << fleet.status();
  EXPECT_LT(Clock::now() - asked, std::chrono::seconds(1));
}

TEST(FleetStart, CanBeCancelledWhileAWorkerIsAwaited) {
  const PlanFile plan("unix:/tmp/thermocline_no_such_worker.sock");
  ExpectCancellable(plan.FleetOf());
}

// A worker that takes its configuration and never loads.
class HangingWorker : public worker::v1::Worker::Service {
 public:
  HangingWorker() : path_(fmt::format("/tmp/thermocline_hanging.{}.sock", getpid())) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address(), grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~HangingWorker() override { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return "unix:" + path_; }

  grpc::Status Configure(grpc::ServerContext*, const worker::v1::ConfigureRequest*,
                         worker::v1::ConfigureResponse* response) override {
    response->set_version(kVersion);
    response->set_weight_bytes(1000);
    return grpc::Status::OK;
  }
  grpc::Status LoadShard(grpc::ServerContext* context, const worker::v1::LoadShardRequest*,
                         grpc::ServerWriter<worker::v1::LoadProgress>*) override {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::CANCELLED;
  }

 private:
  std::string path_;
  std::unique_ptr<grpc::Server> server_;
};

TEST(FleetStart, CanBeCancelledWhileAWorkerHangsInLoading) {
  const HangingWorker worker;
  const PlanFile plan(worker.address());
  ExpectCancellable(plan.FleetOf());
}

TEST(FleetStart, AWorkerThatHangsInLoadingIsGivenUpAndNamed) {
  const HangingWorker worker;
  const PlanFile plan(worker.address());
  FleetOptions options = plan.FleetOf();
  options.load_timeout_ms = 500;
  const Clock::time_point start = Clock::now();
  const absl::Status status = Fleet::Start(options, nullptr, nullptr).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(
      status.message(),
      fmt::format("worker 1 ({}) made no progress in loading for 0.5 s (0 of 1000 bytes done)",
                  worker.address()));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(3));
}

}  // namespace
}  // namespace thermocline::testing
