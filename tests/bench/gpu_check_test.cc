// deploy/gpu_check with stand-ins for all that it runs: its flags, what it makes of answers, and
// that it always leaves a report. Nothing is built or computed.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/subprocess.h"

namespace thermocline::testing {
namespace {

using std::chrono::seconds;

const std::string kScript = std::string(THERMOCLINE_SOURCE_DIR) + "/deploy/gpu_check";

// Stands in for every program. What depends on a test comes from its environment.
constexpr char kStandIn[] = R"sh(#!/bin/bash
name=$(basename "$0")
echo "$name $*" >> "$CALLS"
case "$name $*" in
  nvidia-smi*) [[ $CARD == yes ]] || exit 9; echo "GPU 0: Some Card (UUID: GPU-1)" ;;
  gpu_worker*)
    card='{"name":"cuda:0","description":"cuda:0 (Some Card)","total_bytes":8000000000},'
    [[ $CARD == yes ]] || card=
    echo "{\"devices\":[$card{\"name\":\"emulated\"}],\"no_more\":\"the driver is missing\"}" ;;
  ctest*) echo "100% tests passed, 0 tests failed out of 12" ;;
  perplexity*--kl-divergence\ *)
    printf 'Mean KLD : %s +/- 0.1\nSame top p : 99.1 +/- 0.1 %%\n' "$KL" ;;
  perplexity*) echo "Final estimate: PPL = 39.9 +/- 0.1" ;;
  main*none*) echo "a truth that is the same" ;;
  main*) echo "$TEXT" ;;
  device_bench*--json*)
    while [[ $1 != --json ]]; do shift; done
    row='"op":"matmul","what":"11008 x 4096","gbps":2500,"target":0.85'
    echo "{\"read_gbps\":3000,\"rows\":[{$row,\"type\":\"F16\",\"share\":0.9},
          {$row,\"type\":\"Q4_0\",\"share\":0.5}]}" > "$2" ;;
  bench*)
    [[ $SLOW != yes ]] || { echo waits >> "$CALLS"; sleep 100; }
    rate=10; [[ $* == *none* ]] || rate=30; [[ $* != *step=resident* ]] || rate=35
    echo "[{\"n_prompt\":128,\"median_ts\":90},{\"n_prompt\":0,\"median_ts\":$rate}]" ;;
esac
)sh";

std::string Contents(const std::string& file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

class GpuCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    if (RunChild({"/usr/bin/env", "python3", "--version"}).exit_code != 0) {
      GTEST_SKIP() << "there is no python3";
    }
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/bin");
    for (const char* name : {"nvidia-smi", "nvcc", "lscpu", "git", "cmake", "ctest", "gpu_worker",
                             "main", "perplexity", "device_bench", "bench"}) {
      std::ofstream(folder_ + "/bin/" + name) << kStandIn;
      std::filesystem::permissions(folder_ + "/bin/" + name, std::filesystem::perms::owner_all);
    }
    std::ofstream(folder_ + "/big.gguf") << "weights";
  }

  std::vector<std::string> Command(const std::vector<std::string>& settings,
                                   const std::vector<std::string>& flags) const {
    std::vector<std::string> argv = {"/usr/bin/env", "PATH=" + folder_ + "/bin:/usr/bin:/bin",
                                     "CALLS=" + calls_, "KL=0.00001",
                                     "TEXT=a truth that is the same"};
    argv.insert(argv.end(), settings.begin(), settings.end());
    argv.insert(argv.end(), {kScript, "--build", folder_, "--report", report_});
    argv.insert(argv.end(), flags.begin(), flags.end());
    return argv;
  }
  ChildResult Run(const std::vector<std::string>& settings,
                  const std::vector<std::string>& flags = {}) const {
    return RunChild(Command(settings, flags));
  }
  // The summary's row that begins so.
  std::string Row(const std::string& check) const {
    std::ifstream report(report_);
    for (std::string line; std::getline(report, line);) {
      if (line.rfind("| " + check, 0) == 0) return line;
    }
    return "no row";
  }
  static bool EndsWith(const std::string& row, const std::string& outcome) {
    return row.size() > outcome.size() + 4 &&
           row.substr(row.size() - outcome.size() - 4) == "| " + outcome + " |";
  }

  const std::string folder_ = ::testing::TempDir() + "gpu_check_test";
  const std::string report_ = folder_ + "/report.md";
  const std::string calls_ = folder_ + "/calls";
};

TEST_F(GpuCheck, WrongFlagsAreRefusedWithUsage) {
  for (const std::vector<std::string>& flags : {std::vector<std::string>{"--no-such-flag"},
                                                {"--gpu-device", "tpu:0"},
                                                {"--model", "/nowhere.gguf"},
                                                {"--report", "/nowhere/report.md"},
                                                {"--vram-budget", "-1"}}) {
    const ChildResult result = Run({}, flags);
    EXPECT_EQ(result.exit_code, 2) << flags[0];
    EXPECT_NE(result.err.find("usage: deploy/gpu_check"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(flags[0]), std::string::npos) << result.err;
  }
  EXPECT_EQ(Contents(calls_), "");
}

TEST_F(GpuCheck, WithoutACardTheEmulatedDeviceIsCheckedAndTheRestIsNotRun) {
  const ChildResult result = Run({"CARD=no"});
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  EXPECT_NE(result.out.find("no card (the driver is missing)"), std::string::npos) << result.out;
  EXPECT_TRUE(EndsWith(Row("device"), "not run")) << Row("device");
  EXPECT_TRUE(EndsWith(Row("ctest -L gpu on the emulated device"), "pass"));
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: divergence of emulated"), "pass"));
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: greedy text of emulated"), "pass"));
  EXPECT_TRUE(EndsWith(Row("text and divergence of cuda:0"), "not run"));
  EXPECT_TRUE(EndsWith(Row("kernels against the card"), "not run"));
  EXPECT_TRUE(EndsWith(Row("speed with a card"), "not run"));
  EXPECT_EQ(Contents(calls_).find("--gpu-device cuda"), std::string::npos);
  EXPECT_NE(Contents(report_).find("State: done"), std::string::npos);
}

TEST_F(GpuCheck, ACardIsComparedAndMeasuredAgainstItsTargets) {
  const ChildResult result = Run({"CARD=yes"}, {"--model", folder_ + "/big.gguf"});
  EXPECT_EQ(result.exit_code, 1) << result.err;  // a kernel misses its target
  EXPECT_NE(Contents(calls_).find("-DLLAMA_CUBLAS=ON"), std::string::npos);
  EXPECT_TRUE(EndsWith(Row("device | cuda:0 (Some Card)"), "pass"));
  for (const std::string form : {"graph", "resident"}) {
    const std::string card = "cuda:0:step=" + form;
    EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: divergence of " + card), "pass"));
    EXPECT_TRUE(EndsWith(Row("big.gguf: divergence of " + card + " from"), "pass"));
    EXPECT_TRUE(EndsWith(Row("big.gguf: divergence of " + card + " and CPUs"), "pass"));
    EXPECT_TRUE(EndsWith(Row("big.gguf: greedy text of " + card + " and CPUs"), "pass"));
    EXPECT_NE(Contents(calls_).find("--sparsity off --gpu-device " + card + " --vram-budget"),
              std::string::npos);
  }
  EXPECT_TRUE(EndsWith(Row("matmul 11008 x 4096 F16"), "pass"));
  EXPECT_TRUE(EndsWith(Row("matmul 11008 x 4096 Q4_0"), "FAIL"));
  EXPECT_TRUE(EndsWith(Row("hybrid against the CPUs alone | 3.50x"), "pass"));
  EXPECT_TRUE(EndsWith(Row("all on the card: a resident kernel against a graph | 1.17x"), "-"));
  EXPECT_TRUE(EndsWith(Row("all on the card against the CPUs alone"), "pass"));
}

TEST_F(GpuCheck, TheSmallModelSaysNothingOfSpeed) {
  Run({"CARD=yes"});
  EXPECT_TRUE(EndsWith(Row("hybrid"), "not run")) << Row("hybrid");
  EXPECT_TRUE(EndsWith(Row("all on the card against the CPUs alone | 3.50x"), "-"));
  EXPECT_EQ(Contents(calls_).find("--vram-budget"), std::string::npos);
}

TEST_F(GpuCheck, AnotherTextIsForgivenOnlyWhereTheDivergenceIsSmall) {
  EXPECT_EQ(Run({"CARD=no", "TEXT=a truth that is another"}).exit_code, 0);
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: greedy text"), "pass"));
  EXPECT_EQ(Run({"CARD=no", "TEXT=a truth that is another", "KL=0.5"}).exit_code, 1);
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: greedy text"), "FAIL"));
  EXPECT_EQ(Run({"CARD=no", "KL=nan"}).exit_code, 1);
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: divergence"), "FAIL"));
}

TEST_F(GpuCheck, AStepThatFailsDoesNotStopTheOthers) {
  std::filesystem::remove(folder_ + "/bin/perplexity");
  std::ofstream(folder_ + "/bin/ctest") << "#!/bin/bash\necho broken >&2; exit 8\n";
  const ChildResult result = Run({"CARD=no"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(EndsWith(Row("ctest -L gpu"), "FAIL")) << Row("ctest -L gpu");
  EXPECT_NE(Row("ctest -L gpu").find("exit code 8: broken"), std::string::npos);
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: CPU"), "FAIL"));
  EXPECT_TRUE(EndsWith(Row("reluctant-13m-q8_0.gguf: greedy text of emulated"), "pass"));
  EXPECT_NE(Contents(calls_).find("\nbench "), std::string::npos);
}

TEST_F(GpuCheck, AnAnswerOfAnotherFormIsAFailureOfItsStepAlone) {
  std::ofstream(folder_ + "/bin/device_bench") << "#!/bin/bash\n"
                                               << "while [[ $1 != --json ]]; do shift; done\n"
                                               << "echo '{}' > $2\n";
  EXPECT_EQ(Run({"CARD=yes"}).exit_code, 1);
  EXPECT_TRUE(EndsWith(Row("kernels"), "FAIL")) << Row("kernels");
  EXPECT_TRUE(EndsWith(Row("all on the card against the CPUs alone"), "-"));
}

TEST_F(GpuCheck, WhenInterruptedItEndsItsProgramsAndLeavesThePartialReport) {
  Child child(Command({"CARD=no", "SLOW=yes"}, {}));
  ASSERT_TRUE(child.WaitForOut("speed", seconds(30)));
  for (int i = 0; i < 500 && Contents(calls_).find("waits") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  child.Signal(SIGINT);
  EXPECT_EQ(child.Wait(seconds(20)).exit_code, 130);
  EXPECT_TRUE(child.Family().empty());
  EXPECT_NE(Contents(report_).find("State: interrupted"), std::string::npos);
  EXPECT_TRUE(EndsWith(Row("ctest -L gpu"), "pass"));
  EXPECT_TRUE(EndsWith(Row("speed"), "not run")) << Row("speed");
  EXPECT_FALSE(std::filesystem::exists(report_ + ".new"));
}

}  // namespace
}  // namespace thermocline::testing
