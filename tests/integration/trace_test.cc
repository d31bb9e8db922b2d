// --trace: what a fleet writes of its steps, with CPU ranks and with the emulated GPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "common/rpc/channel.h"
#include "coordinator/engine/fleet.h"
#include "fmt/format.h"
#include "tests/integration/programs.h"

namespace thermocline::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

class Grpc : public ::testing::Environment {
  void SetUp() override { PrepareGrpc(); }
};
const auto* const kGrpc = ::testing::AddGlobalTestEnvironment(new Grpc);

constexpr int32_t kGemmPrompt = 50, kSmallPrompt = 6, kNewTokens = 3;

struct Event {
  std::string name;
  int pid, tid, step, layer;
  double begin_us, end_us;
  bool Overlaps(const Event& other) const {
    return begin_us < other.end_us && other.begin_us < end_us;
  }
};

class Trace : public ::testing::Test {
 protected:
  Trace() {
    options_.model_path = ShippedModel();
    options_.sparsity.predictor_path =
        THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.predictor";
    options_.sparsity.mode = "predict";
    options_.worker_binary = ProgramPath("cpu_worker");
    options_.gpu_worker_binary = ProgramPath("gpu_worker");
    options_.n_workers = 1;
    options_.n_threads = 1;
    options_.n_ctx = 128;
    options_.batch_size = 64;
    options_.stall_timeout_ms = 60000;  // emulated kernels under sanitizers take their time
    options_.trace_path = ::testing::TempDir() + fmt::format("fleet.{}.trace", getpid());
    options_.on_trace = [this](const absl::Status& status) { saved_ = status; };
  }
  ~Trace() override { std::filesystem::remove(options_.trace_path); }

  std::unique_ptr<Fleet> Start() {
    auto fleet = Fleet::Start(options_, nullptr, nullptr);
    EXPECT_TRUE(fleet.ok()) << fleet.status();
    return fleet.ok() ? *std::move(fleet) : nullptr;
  }
  // A prompt, then tokens one by one; their logits.
  static std::vector<float> Compute(Fleet& fleet, int32_t n_prompt) {
    std::vector<float> logits;
    const auto run = [&](const std::vector<TokenInput>& tokens) {
      const absl::Status status = fleet.Run(tokens);
      EXPECT_TRUE(status.ok()) << status;
      logits.insert(logits.end(), fleet.logits(0),
                    fleet.logits(0) + fleet.model().config().n_vocab);
    };
    std::vector<TokenInput> prompt;
    for (int32_t i = 0; i < n_prompt; ++i) prompt.push_back({300 + 17 * i, 0, i, false});
    prompt.back().wants_logits = true;
    run(prompt);
    for (int32_t i = 0; i < kNewTokens; ++i) run({{900 + 31 * i, 0, n_prompt + i, true}});
    return logits;
  }
  // What a fleet has written that computed this and has ended.
  void Record(int32_t n_prompt) {
    {
      const auto fleet = Start();
      ASSERT_NE(fleet, nullptr);
      n_ranks_ = fleet->plan().n_ranks();
      n_layers_ = fleet->model().config().n_layers;
      Compute(*fleet, n_prompt);
    }
    ASSERT_TRUE(saved_.ok()) << saved_;
    Read();
  }
  void Read() {
    const nlohmann::json file =
        nlohmann::json::parse(std::ifstream(options_.trace_path), nullptr, false);
    ASSERT_TRUE(file.is_object());
    for (const nlohmann::json& event : file["traceEvents"]) {
      const int pid = event["pid"].get<int>();
      if (event["ph"] == "M") {
        if (event["name"] == "process_name") names_[pid] = event["args"]["name"];
        continue;
      }
      ASSERT_EQ(event["ph"], "X");
      const double begin = event["ts"].get<double>();
      events_.push_back({event["name"].get<std::string>(), pid, event["tid"].get<int>(),
                         event["args"]["step"].get<int>(), event["args"].value("layer", -1), begin,
                         begin + event["dur"].get<double>()});
    }
  }
  std::set<std::string> Ops(int pid, int step) const {
    std::set<std::string> ops;
    for (const Event& event : events_) {
      if (event.pid == pid && event.step == step) ops.insert(event.name);
    }
    return ops;
  }
  // Every step of every process is there; spans lie in their step, those of a row one after
  // another; each rank meets the others twice a layer.
  void ExpectWholeSteps() {
    constexpr double kRoundingUs = 1e-3;
    std::map<std::pair<int, int>, Event> steps;
    std::map<std::pair<int, int>, std::vector<Event>> rows;
    std::map<std::pair<int, int>, std::set<int>> waits;
    for (const Event& event : events_) {
      rows[{event.pid, event.tid}].push_back(event);
      if (event.name == "step") steps.insert({{event.pid, event.step}, event});
      if (event.name == "wait") waits[{event.pid, event.step}].insert(event.layer);
    }
    EXPECT_EQ(steps.size(), (n_ranks_ + 1) * (1u + kNewTokens));
    for (const Event& event : events_) {
      const Event& step = steps.at({event.pid, event.step});
      EXPECT_GE(event.begin_us, step.begin_us - kRoundingUs) << event.name;
      EXPECT_LE(event.end_us, step.end_us + kRoundingUs) << event.name;
    }
    for (auto& [row, events] : rows) {
      std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
        return std::pair(a.begin_us, a.end_us) < std::pair(b.begin_us, b.end_us);
      });
      for (size_t i = 1; i < events.size(); ++i) {
        EXPECT_LE(events[i - 1].end_us, events[i].begin_us + kRoundingUs) << events[i].name;
      }
    }
    for (const auto& [key, step] : steps) {
      if (key.first == n_ranks_) continue;
      EXPECT_EQ(waits[key].size(), static_cast<size_t>(n_layers_)) << key.first;
      const Event& coordinator = steps.at({n_ranks_, key.second});
      EXPECT_TRUE(step.Overlaps(coordinator)) << key.first << " " << key.second;
    }
  }

  FleetOptions options_;
  absl::Status saved_ = absl::UnknownError("not saved");
  int n_ranks_ = 0;
  int64_t n_layers_ = 0;
  std::map<int, std::string> names_;
  std::vector<Event> events_;
};

TEST_F(Trace, HasEveryStepOfCpuRanksAndOfTheCoordinator) {
  options_.n_workers = 2;
  options_.n_threads = 2;
  Record(kSmallPrompt);
  EXPECT_THAT(names_[0], HasSubstr("rank 0: 1 thread, "));
  EXPECT_THAT(names_[1], HasSubstr("rank 1: 1 thread, "));
  EXPECT_EQ(names_[2], "coordinator");
  ExpectWholeSteps();
  for (const int step : {1, 2}) {
    EXPECT_THAT(Ops(0, step), IsSupersetOf({"attention", "choose", "gate", "up", "down", "wait",
                                            "add", "output"}));
    EXPECT_THAT(Ops(2, step), ElementsAre("embed", "run", "step"));
  }
}

// Rank 0, the GPU, has attention and hot neurons; rank 1 the cold ones.
class GpuTrace : public Trace, public ::testing::WithParamInterface<std::tuple<std::string, int>> {
 protected:
  GpuTrace() {
    options_.transport = std::get<0>(GetParam());
    options_.gpu_device = "emulated";
    options_.plan_path = options_.trace_path + ".json";
  }
  ~GpuTrace() override { std::filesystem::remove(options_.plan_path); }
  // Half of each layer's neurons, so that both have something to do.
  void MakePlan() {
    FleetOptions options = options_;
    options.plan_path = options.trace_path = "";
    options.gpu_device = "none";
    options.n_workers = options.n_threads = 2;
    const auto fleet = Fleet::Start(options, nullptr, nullptr);
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    Plan plan = (*fleet)->plan();
    plan.ranks[0].kind = RankKind::kGpu;
    plan.ranks[0].device = "emulated";
    ASSERT_TRUE(WritePlan(plan, options_.plan_path).ok());
  }
};

TEST_P(GpuTrace, SpansOfTheGpuAndOfCpusOverlapInALayer) {
  const int n_prompt = std::get<1>(GetParam());
  MakePlan();
  Record(n_prompt);
  ASSERT_EQ(n_ranks_, 2);
  EXPECT_THAT(names_[0], HasSubstr("rank 0: emulated"));
  ExpectWholeSteps();
  for (const int step : {1, 2}) {
    EXPECT_THAT(Ops(0, step), IsSupersetOf({"upload", "norm", "qkv", "rope", "attend",
                                            "attention output", "choose", "gate", "fire", "up",
                                            "activate", "down", "leave", "wait", "add", "output"}));
  }
  const auto computes = [](const Event& event) { return event.layer >= 0 && event.tid == 1; };
  int n_overlaps = 0;
  for (const Event& gpu : events_) {
    if (gpu.pid != 0 || !computes(gpu)) continue;
    n_overlaps += std::any_of(events_.begin(), events_.end(), [&](const Event& cpu) {
      return cpu.pid == 1 && computes(cpu) && cpu.step == gpu.step && cpu.layer == gpu.layer &&
             cpu.Overlaps(gpu);
    });
  }
  EXPECT_GT(n_overlaps, 0);
}

INSTANTIATE_TEST_SUITE_P(Carriers, GpuTrace,
                         ::testing::Combine(::testing::Values("shm", "grpc"),
                                            ::testing::Values(kSmallPrompt, kGemmPrompt)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + std::to_string(std::get<1>(info.param));
                         });

TEST_F(Trace, ChangesNoBit) {
  const std::vector<float> traced = Compute(*Start(), kSmallPrompt);
  std::filesystem::remove(options_.trace_path);
  const std::string path = std::exchange(options_.trace_path, "");
  EXPECT_EQ(Compute(*Start(), kSmallPrompt), traced);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(Trace, OfAFleetThatLostAWorkerThereIsNone) {
  {
    const auto fleet = Start();
    ASSERT_NE(fleet, nullptr);
    Compute(*fleet, kSmallPrompt);
    const auto stats = fleet->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    kill((*stats)[0].pid(), SIGKILL);
    for (int i = 0; i < 500 && fleet->state().ok(); ++i) usleep(10000);
  }
  EXPECT_THAT(std::string(saved_.message()), HasSubstr("was killed by signal 9"));
  EXPECT_FALSE(std::filesystem::exists(options_.trace_path));
}

TEST_F(Trace, APathThatCannotBeWrittenIsRefusedAtTheStart) {
  for (const std::string path : {"/no/such/folder/trace.json", "/tmp"}) {
    options_.trace_path = path;
    const auto fleet = Fleet::Start(options_, nullptr, nullptr);
    EXPECT_THAT(std::string(fleet.status().message()), HasSubstr(path));
  }
  options_.trace_path = "";
}

TEST_F(Trace, IsWrittenWhenASignalEndsTheProgram) {
  Child child({ProgramPath("main"), "-m", ShippedModel(), "-p", "It is", "-n", "-1", "-c", "32768",
               "--ignore-eos", "-t", "2", "--workers", "2", "--gpu-device", "none", "--trace",
               options_.trace_path});
  ASSERT_TRUE(child.WaitForOut("It is", std::chrono::seconds(20)));
  usleep(300000);
  child.SignalGroup(SIGINT);
  const ChildResult result = child.Wait(std::chrono::seconds(20));
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_THAT(result.err, HasSubstr("trace of the last steps: " + options_.trace_path));
  Read();
  EXPECT_GT(events_.size(), 100u);
}

}  // namespace
}  // namespace thermocline::testing
