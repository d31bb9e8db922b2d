// build/bin/main as a user runs it: text, errors, signals, with real workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/model/profile.h"
#include "common/model/tokenizer.h"
#include "tests/integration/programs.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::ChildResult;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Filling it takes seconds: long enough to be interrupted on any machine.
constexpr char kLongContext[] = "32768";

ChildResult RunMain(std::vector<std::string> words) {
  words.insert(words.begin(), ProgramPath("main"));
  return testing::RunChild(words);
}

std::vector<std::string> Greedy(const std::string& prompt, int n_tokens) {
  return {"-m",
          ShippedModel(),
          "--no-escape",
          "-p",
          prompt,
          "-n",
          std::to_string(n_tokens),
          "--temp",
          "0",
          "-t",
          "1",
          "--quiet",
          "--workers",
          "1"};
}

std::vector<std::string> With(std::vector<std::string> words, std::vector<std::string> more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

class MainProgram : public ::testing::Test {
 protected:
  MainProgram() {
    auto model = testing::LoadExpectedModel(ShippedModel());
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  testing::ExpectedModel model_;
};

// The text of the first n expected tokens, as a stream that goes on where the prompt ends.
std::string Continuation(const testing::ExpectedModel& model, const testing::ExpectedPrompt& prompt,
                         size_t n) {
  const auto tokenizer = Tokenizer::Create(*model.file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::string text;
  for (size_t i = 0; i < n; ++i) text += (*tokenizer)->Piece(prompt.greedy[i], /*special=*/false);
  return text;
}

TEST_F(MainProgram, PrintsTheExpectedGreedyText) {
  for (const testing::ExpectedPrompt& prompt : model_.prompts) {
    const ChildResult result =
        RunMain(With(Greedy(prompt.text, static_cast<int>(prompt.greedy.size())),
                     {"--activations", "f32", "--kv-type", "f32", "--workers", "2", "-t", "2"}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, prompt.text + Continuation(model_, prompt, prompt.greedy.size()));
    EXPECT_THAT(result.out, EndsWith(prompt.greedy_text));
    EXPECT_EQ(result.err, "") << "--quiet";
  }
}

TEST_F(MainProgram, WithInt8TheTextIsTheSameUpToTheFirstNearTie) {
  for (const testing::ExpectedPrompt& prompt : model_.prompts) {
    const auto tie = std::find_if(prompt.margin.begin(), prompt.margin.end(),
                                  [](float margin) { return margin < 0.1f; });
    const ChildResult result = RunMain(Greedy(prompt.text, static_cast<int>(prompt.greedy.size())));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, StartsWith(prompt.text +
                                       Continuation(model_, prompt, tie - prompt.margin.begin())));
  }
}

TEST_F(MainProgram, ASeedGivesTheSameTextEveryTime) {
  const std::vector<std::string> words =
      With(Greedy("The king", 24), {"--temp", "1.5", "--seed", "7"});
  const ChildResult first = RunMain(words), second = RunMain(words);
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.out, second.out);
  EXPECT_NE(first.out, RunMain(With(words, {"--seed", "8"})).out);
}

TEST_F(MainProgram, WithoutQuietItSaysWhatRunsAndHowFast) {
  std::vector<std::string> words = Greedy("The king", 4);
  std::erase(words, "--quiet");
  const ChildResult result = RunMain(With(words, {"-ngl", "20"}));
  EXPECT_EQ(result.exit_code, 0);
  for (const char* text : {"reluctant-13m-q8_0.gguf", "1 worker", "1 thread", "shm", "load time",
                           "prompt eval time", "tokens per second", "no GPU"}) {
    EXPECT_THAT(result.err, HasSubstr(text));
  }
  EXPECT_THAT(result.out, StartsWith("The king"));
}

// One line on stderr, nothing on stdout, and not 0.
void ExpectOneLineError(const ChildResult& result, const std::string& what) {
  EXPECT_NE(result.exit_code, 0);
  EXPECT_LT(result.exit_code, 128) << "ended by a signal: " << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_THAT(result.err, StartsWith("main: error: "));
  EXPECT_THAT(result.err, HasSubstr(what));
}

TEST_F(MainProgram, WrongUseIsOneClearLine) {
  ExpectOneLineError(RunMain({"-m", ShippedModel(), "--tmep", "0"}), "--temp");
  ExpectOneLineError(RunMain({"-p", "x"}), "-m");
  ExpectOneLineError(RunMain({"-m", "/nonexistent/model.gguf", "-p", "x"}),
                     "/nonexistent/model.gguf");
  ExpectOneLineError(RunMain({"-m", "/", "-p", "x"}), "/");
  ExpectOneLineError(RunMain(With(Greedy(std::string(4000, 'x') + " x", 1), {"-c", "64"})),
                     "--ctx-size");
  ExpectOneLineError(RunMain({"--coordinator", "127.0.0.1:1", "-p", "x"}), "127.0.0.1:1");
  ExpectOneLineError(RunMain({"--coordinator", "10.0.0.1:1", "-p", "x"}), "--tls-cert");
  ExpectOneLineError(RunMain({"-m", ShippedModel(), "--plan", "p.json", "-t", "1"}), "--plan");
}

TEST_F(MainProgram, DamagedFilesAreOneClearLine) {
  const std::string folder = ::testing::TempDir();
  const std::string text = folder + "main_test_not_a.gguf";
  std::ofstream(text) << "this is no model\n";
  ExpectOneLineError(RunMain({"-m", text, "-p", "x", "--quiet"}), text);
  std::filesystem::remove(text);

  std::ifstream whole_file(ShippedModel(), std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(whole_file), {});
  for (size_t n : {size_t{0}, size_t{100}, size_t{100'000}, whole.size() - 1}) {
    const std::string cut = folder + "main_test_cut.gguf";
    std::ofstream(cut, std::ios::binary) << whole.substr(0, n);
    ExpectOneLineError(RunMain({"-m", cut, "-p", "x", "--quiet"}), cut);
    std::filesystem::remove(cut);
  }
}

// A predictor folder and a plan to be spoilt.
class SparseInput : public MainProgram {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "main_test_predictor." + std::to_string(getpid());
    std::filesystem::copy(THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.predictor",
                          folder_);
    predictor_ = folder_ + "/predictor.gguf";
    profile_ = folder_ + "/profile.gguf";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void ExpectError(const std::vector<std::string>& words, const std::vector<std::string>& parts) {
    const ChildResult result = RunMain(With(Greedy("The king", 2), words));
    for (const std::string& part : parts) ExpectOneLineError(result, part);
  }
  // The plan says how many workers and threads there are.
  ChildResult RunPlan(const std::string& text) {
    Write(folder_ + "/plan.json", text);
    return RunMain({"-m", ShippedModel(), "-p", "The king", "-n", "2", "--quiet", "--plan",
                    folder_ + "/plan.json"});
  }
  void ExpectPlanError(const std::string& text, const std::vector<std::string>& parts) {
    const ChildResult result = RunPlan(text);
    ExpectOneLineError(result, folder_ + "/plan.json");
    for (const std::string& part : parts) ExpectOneLineError(result, part);
  }
  void ExpectFolderError(const std::string& mode, const std::vector<std::string>& parts) {
    ExpectError({"--predictor-path", folder_, "--sparsity", mode}, parts);
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static void Write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  // A plan of one rank for layers that say so much of each rank.
  std::string PlanText(const std::string& decider, const std::string& kv_heads,
                       const std::string& neurons) {
    return R"({"version": 2, "model": ")" + model_.file->ContentHash() +
           R"(", "ranks": [{"kind": "cpu", "node": -1, "threads": 1}], "layers": [{"layers": [0, 8], )" +
           R"("mode": "exact", )" + decider + R"("kv_heads": )" + kv_heads + R"(, "neurons": )" +
           neurons + R"(}], "vocab": [[0, 4096]]})";
  }
  std::string folder_, predictor_, profile_;
};

TEST_F(SparseInput, WholeFilesWork) {
  for (const char* mode : {"exact", "predict", "sketch", "auto"}) {
    const ChildResult result =
        RunMain(With(Greedy("The king", 2), {"--predictor-path", folder_, "--sparsity", mode}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

TEST_F(SparseInput, AFileOfAnotherModelIsNamedWithBothHashes) {
  const std::string hash = model_.file->ContentHash();
  const std::string other = std::string(hash.rbegin(), hash.rend());
  for (const std::string& path : {predictor_, profile_}) {
    const std::string whole = Read(path);
    std::string spoilt = whole;
    ASSERT_NE(spoilt.find(hash), std::string::npos);
    Write(path, spoilt.replace(spoilt.find(hash), hash.size(), other));
    ExpectFolderError("auto", {path, hash, other, "with solve"});
    Write(path, whole);
  }
}

TEST_F(SparseInput, TruncatedFilesAreNamed) {
  for (const std::string& path : {predictor_, profile_}) {
    const std::string whole = Read(path);
    for (const size_t n : {size_t{0}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
      Write(path, whole.substr(0, n));
      ExpectFolderError("auto", {path, "with solve"});
    }
    Write(path, whole);
  }
}

TEST_F(SparseInput, AProfileOfTooFewLayersIsNamed) {
  auto profile = ReadProfile(profile_);
  ASSERT_TRUE(profile.ok()) << profile.status();
  profile->layers.pop_back();
  ASSERT_TRUE(WriteProfile(*profile, profile_).ok());
  ExpectFolderError("sketch", {profile_, "has 7 layers, the model has 8", "with solve"});
}

TEST_F(SparseInput, AWeightThatIsNoNumberIsNamed) {
  uint64_t at = 0;
  std::string place;
  {
    const auto file = GgufFile::Open(predictor_);
    ASSERT_TRUE(file.ok()) << file.status();
    const GgufTensor* tensor = (*file)->FindTensor("blk.3.fc2.weight");
    ASSERT_EQ(tensor->type, TensorType::kQ8_0);
    at = tensor->file_offset;
    const auto rank = static_cast<int64_t>(tensor->dims[0]);
    place = "row " + std::to_string(32 / rank) + ", column " + std::to_string(32 % rank);
  }
  std::string bytes = Read(predictor_);
  Write(predictor_, bytes.replace(at + 34, 2, "\xff\x7e"));  // the second block's scale
  ExpectFolderError("predict",
                    {predictor_, "'blk.3.fc2.weight'", "not a finite number", place, "with solve"});
}

TEST_F(SparseInput, APlanThatNamesAMissingRankIsRefused) {
  EXPECT_EQ(RunPlan(PlanText("", "[[0, 2]]", "[[[0, 1536]]]")).exit_code, 0);
  ExpectPlanError(PlanText("", "[[0, 1], [1, 2]]", "[[[0, 736]], [[736, 1536]]]"),
                  {"layer 0", "for 2 and neurons for 2 of 1 ranks"});
  ExpectPlanError(PlanText(R"("decider": 1, )", "[[0, 2]]", "[[[0, 1536]]]"),
                  {"layer 0", "its decider is rank 1"});
  ExpectPlanError(PlanText("", "[[0, 2]]", "[[[0, 736]]]"),  // the other rank's are left over
                  {"layer 0", "[736, 1536) belongs to no rank"});
}

TEST_F(SparseInput, AModeWithoutWhatItNeedsSaysWhatHelps) {
  ExpectError({"--predictor-path", "/no/such/folder"}, {"/no/such/folder", "build/bin/solve"});
  ExpectError({"--predictor-path", predictor_}, {predictor_, "no such folder", "build/bin/solve"});
  for (const std::string mode : {"sketch", "predict", "threshold"}) {
    ExpectError({"--sparsity", mode}, {"--sparsity " + mode, "build/bin/solve"});
  }
  std::filesystem::remove(profile_);
  ExpectFolderError("sketch", {"--sparsity sketch", "profile", "build/bin/solve"});
  std::filesystem::remove(predictor_);
  ExpectFolderError("off", {folder_, "profile.gguf", "build/bin/solve"});
}

TEST_F(SparseInput, AModeForReluModelsIsRefusedForOthers) {
  for (const std::string mode : {"exact", "predict", "sketch"}) {
    ExpectError({"--sparsity", mode, "--hidden-activation", "silu", "--predictor-path", folder_},
                {"--sparsity " + mode, "ReLU models", "Use threshold, or off"});
  }
}

TEST_F(MainProgram, AFullContextIsAnErrorUnlessAskedFor) {
  const std::vector<std::string> words = With(Greedy("The king", -1), {"-c", "32", "--ignore-eos"});
  const ChildResult error = RunMain(words);
  EXPECT_EQ(error.exit_code, 1);
  EXPECT_THAT(error.err, HasSubstr("context is full (32 tokens)"));
  EXPECT_THAT(error.out, StartsWith("The king"));
  const ChildResult end = RunMain(With(words, {"-n", "-2"}));
  EXPECT_EQ(end.exit_code, 0) << end.err;
  EXPECT_EQ(end.out, error.out);
}

TEST_F(MainProgram, OutputThatCannotBeWrittenIsAnError) {
  const std::string words = ProgramPath("main") + " -m " + ShippedModel() + " -p x -n 4 -t 1 ";
  const auto run = [&](const std::string& redirection) {
    return testing::RunChild({"/bin/sh", "-c", words + redirection});
  };
  const ChildResult full = run("--quiet >/dev/full");
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("No space left"));
  const ChildResult closed = run("--quiet >&-");
  EXPECT_EQ(closed.exit_code, 1);
  EXPECT_THAT(closed.err, StartsWith("main: error: can't write"));
  EXPECT_EQ(run("2>&-").exit_code, 0);
  EXPECT_EQ(run("<&-").exit_code, 0);
  EXPECT_EQ(
      testing::RunChild({"/bin/sh", "-c", ProgramPath("main") + " --help >/dev/full"}).exit_code,
      1);
}

TEST_F(MainProgram, HelpAndVersionEndWithZero) {
  const ChildResult help = RunMain({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("--ctx-size"));
  const ChildResult version = RunMain({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, StartsWith("thermocline "));
}

TEST_F(MainProgram, CtrlCStopsCleanlyAndLeavesNoProcess) {
  for (const auto& [signal, exit_code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    std::vector<std::string> words = With(
        Greedy("The king", -2), {"--ignore-eos", "-c", kLongContext, "--workers", "2", "-t", "2"});
    std::erase(words, "--quiet");
    words.insert(words.begin(), ProgramPath("main"));
    Child child(words);
    ASSERT_TRUE(child.WaitForOut("The king", 30s)) << child.err();
    if (signal == SIGINT) {
      child.SignalGroup(signal);
    } else {
      child.Signal(signal);
    }
    const ChildResult result = child.Wait(10s);
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr("eval time"));
    EXPECT_TRUE(NothingIsLeft(child));
  }
}

TEST_F(MainProgram, CtrlCWhileLoadingLeavesNoProcess) {
  for (const auto delay : {0ms, 20ms, 60ms, 120ms}) {
    std::vector<std::string> words = Greedy("The king", 2000);
    words.insert(words.begin(), ProgramPath("main"));
    Child child(words);
    std::this_thread::sleep_for(delay);
    child.SignalGroup(SIGINT);
    const ChildResult result = child.Wait(10s);
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(result.exit_code, 130) << result.err;
    EXPECT_TRUE(NothingIsLeft(child));
  }
}

TEST_F(MainProgram, WithTurnsCtrlCGivesTheTurnBack) {
  Child child({ProgramPath("main"), "-m", ShippedModel(), "-i", "-p", "The king", "-n", "-2",
               "--ignore-eos", "-c", kLongContext, "--temp", "0", "-t", "1", "--quiet"});
  ASSERT_TRUE(child.WaitForOut("The king", 30s)) << child.err();
  child.SignalGroup(SIGINT);
  std::this_thread::sleep_for(500ms);  // it waits for a line then
  EXPECT_FALSE(child.Family().empty());
  child.SignalGroup(SIGINT);
  const ChildResult result = child.Wait(10s);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_TRUE(NothingIsLeft(child));
}

TEST_F(MainProgram, TurnsEndWithTheInput) {
  Child child({ProgramPath("main"), "-m", ShippedModel(), "-i", "-n", "4", "--temp", "0", "-t", "1",
               "--quiet"});
  child.Type("The king\nThe queen\n");
  const ChildResult result = child.Wait(30s);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out, "");
}

}  // namespace
}  // namespace thermocline
