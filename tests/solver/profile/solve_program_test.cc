// build/bin/solve and solver/solve.py from end to end, with real workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/gguf/gguf_file.h"
#include "common/model/predictor.h"
#include "common/model/profile.h"
#include "common/plan/plan.h"
#include "tests/integration/programs.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::Child;
using testing::ChildResult;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RunChild;
using testing::TinyLlama;

class SolveProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("solve_program_test." + std::to_string(getpid()));
    fs::create_directory(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string Write(const TinyLlama& model) const {
    const std::string path = root_ / "tiny.gguf";
    const testing::Bytes bytes = model.Builder().Build();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    return path;
  }
  std::vector<std::string> Command(const std::string& model,
                                   const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command = {ProgramPath("solve"), "--model", model, "--output", Out(),
                                        "--threads",          "2"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
  std::string Out() const { return root_ / "out"; }
  // What is in the folder that holds the result.
  std::vector<std::string> Beside() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_)) {
      const std::string name = entry.path().filename();
      if (name != "tiny.gguf") names.push_back(name);
    }
    return names;
  }
  std::vector<std::string> Made() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(Out())) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  nlohmann::json Report() const {
    std::ifstream file(root_ / "out" / "report.json");
    return nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  }
  // The folder's files can be read for this model.
  void ExpectFits(const std::string& path) const {
    const auto model = GgufFile::Open(path);
    ASSERT_TRUE(model.ok()) << model.status();
    const auto config = ReadModelConfig(**model);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto profile = ReadProfile(Out() + "/profile.gguf");
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_TRUE(
        CheckProfile(*profile, "profile", (*model)->ContentHash(), config->n_layers, config->d_ff)
            .ok());
    const auto plan = ReadPlan(Out() + "/plan.json");
    ASSERT_TRUE(plan.ok()) << plan.status();
    const absl::Status fits = CheckPlan(*plan, *config, (*model)->ContentHash(), &*profile);
    EXPECT_TRUE(fits.ok()) << fits;
    if (!fs::exists(Out() + "/predictor.gguf")) return;
    const auto file = GgufFile::Open(Out() + "/predictor.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    const auto predictor = ReadPredictor(**file, *config, (*model)->ContentHash());
    EXPECT_TRUE(predictor.ok()) << predictor.status();
  }
  fs::path root_;
};

// Few tokens, and then what a test wants.
std::vector<std::string> Quick(const std::vector<std::string>& more) {
  std::vector<std::string> flags = {"--tokens", "4096", "--epochs", "1", "--seed", "3"};
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

TEST_F(SolveProgram, MakesAFolderThatFitsTheShippedModel) {
  const ChildResult result = RunChild(
      Command(ShippedModel(), Quick({"--plot", root_ / "plot.svg", "--workers", "2"})), 120s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Made(), ElementsAre("plan.json", "predictor.gguf", "profile.gguf", "report.json"));
  EXPECT_THAT(Beside(), ::testing::UnorderedElementsAre("out", "plot.svg"));
  ExpectFits(ShippedModel());
  EXPECT_THAT(result.out, HasSubstr("sketch, 2 bits"));
  const nlohmann::json report = Report();
  ASSERT_EQ(report["layers"].size(), 8u);
  EXPECT_EQ(report["n_tokens"], 3072);  // one window of four is set aside
  const nlohmann::json kl = report["mean_kl"];
  EXPECT_GT(kl["sketch_3"], 0.0);
  EXPECT_LT(kl["sketch_3"], kl["sketch_2"]);
  EXPECT_LT(kl["sketch_2"], kl["sketch_1"]);
  EXPECT_LT(kl["sketch_1"], 0.01);
  EXPECT_LT(kl["predict"], 0.03);
  int64_t n_bytes = 0;
  for (const auto& layer : report["layers"]) {
    EXPECT_GT(layer["firing"], 0.01);
    EXPECT_LT(layer["firing"], 0.4);
    EXPECT_NEAR(layer["sketch_2"]["recall"].get<double>(), 0.98, 0.02);
    EXPECT_LT(layer["sketch_3"]["computed"], 0.5);
    EXPECT_GT(layer["predictor"]["mass"], 0.97);
    n_bytes += layer["predictor"]["bytes"].get<int64_t>();
  }
  EXPECT_LE(n_bytes, fs::file_size(ShippedModel()) * 6 / 100);
  EXPECT_GT(fs::file_size(root_ / "plot.svg"), 1000u);
}

TEST_F(SolveProgram, TheSameSeedGivesTheSameProfileAndPredictor) {
  const std::string model = Write({.n_ctx = 128});
  std::vector<std::string> files[2];
  for (int i = 0; i < 2; ++i) {
    const auto command = Command(
        model, Quick({"--predictor-budget", "60", "--quiet", "--threads", std::to_string(i + 1)}));
    const ChildResult result = RunChild(command, 60s);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out + result.err, "");
    for (const char* name : {"/profile.gguf", "/predictor.gguf"}) {
      std::ifstream file(Out() + name, std::ios::binary);
      files[i].emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  EXPECT_TRUE(files[0] == files[1]);
  ExpectFits(model);
}

TEST_F(SolveProgram, SamplesThatDoNotFitAtOnceTakeMoreRunsOfTheText) {
  const std::string model = Write({.n_layers = 3});
  // 2048 samples of a layer take 0.5 MiB: one layer at a time.
  const auto command =
      Command(model, Quick({"--predictor-budget", "60", "--sample-memory-gb", "0.0006"}));
  const ChildResult result = RunChild(command, 60s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("the text is run 4 times"));
  ExpectFits(model);
}

TEST_F(SolveProgram, ASwigluModelGetsThresholdsAndIsToldThatThereIsNoPredictor) {
  const std::string model = Write({.activation = nullptr});
  const ChildResult result = RunChild(Command(model, Quick({"--skip", "40"})), 60s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("no predictor: the model's activation is SiLU"));
  EXPECT_THAT(Made(), ElementsAre("plan.json", "profile.gguf", "report.json"));
  ExpectFits(model);
  EXPECT_NEAR(Report()["layers"][1]["magnitude"]["computed"].get<double>(), 0.6, 0.05);
  EXPECT_THAT(Report()["no_predictor"], HasSubstr("SiLU"));
  EXPECT_GT(Report()["mean_kl"]["threshold"], 0.0);
  EXPECT_FALSE(Report()["mean_kl"].contains("sketch_1"));
}

TEST_F(SolveProgram, APowerInferModelWithReluTwiceGetsItsFolder) {
  const std::string model =
      THERMOCLINE_SOURCE_DIR "/tests/golden/powerinfer/powerinfer_bamboo.gguf";
  const ChildResult result = RunChild(
      Command(model, {"--tokens", "256", "--epochs", "1", "--predictor-budget", "50"}), 60s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  ExpectFits(model);
  EXPECT_FALSE(Report().contains("no_mean_kl")) << Report()["no_mean_kl"];
  for (const char* mode : {"exact", "predict", "sketch"}) {
    const ChildResult main = RunChild({ProgramPath("main"), "-m", model, "--predictor-path", Out(),
                                       "--sparsity", mode, "-p", "a", "-n", "2", "--threads", "2"},
                                      60s);
    EXPECT_EQ(main.exit_code, 0) << main.err;
  }
}

TEST_F(SolveProgram, APlanIsMadeForTheGpuThatIsTold) {
  const std::string model = Write({});
  const ChildResult result = RunChild(
      Command(model, Quick({"--no-predictor", "--target-gpu-layers", "1", "--gpu-memory-gb", "8"})),
      60s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto plan = ReadPlan(Out() + "/plan.json");
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_GE(plan->n_ranks(), 2);
  EXPECT_EQ(plan->ranks[0].kind, RankKind::kGpu);
  ExpectFits(model);
}

TEST_F(SolveProgram, AnInterruptedOrKilledRunLeavesNoFolder) {
  const std::vector<std::string> command = Command(ShippedModel(), {"--epochs", "50"});
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    Child child(command);
    ASSERT_TRUE(child.WaitForErr("operations in all", 30s)) << child.err();
    EXPECT_EQ(Beside().size(), 1u);  // the temporary folder
    if (signal == SIGINT) {
      child.SignalGroup(signal);  // as a terminal does
    } else {
      child.Signal(signal);
    }
    const ChildResult result = child.Wait(30s);
    EXPECT_EQ(result.exit_code, 128 + signal) << result.err;
    EXPECT_TRUE(NothingIsLeft(child));
    EXPECT_FALSE(fs::exists(Out()));
    EXPECT_EQ(Beside().size(), signal == SIGKILL ? 1u : 0u);
  }
  const ChildResult next = RunChild(Command(Write({}), Quick({"--no-predictor"})), 60s);
  ASSERT_EQ(next.exit_code, 0) << next.err;
  EXPECT_THAT(Beside(), ElementsAre("out"));
}

TEST_F(SolveProgram, WrongFlagsAndFilesAreOneErrorEach) {
  const std::string model = Write({});
  const auto expect = [&](std::vector<std::string> command, int exit_code,
                          const std::string& message) {
    const ChildResult result = RunChild(command, 60s);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr("solve: error: "));
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_FALSE(fs::exists(Out()));
  };
  const std::string solve = ProgramPath("solve");
  expect({solve, "--output", Out()}, 2, "no model given");
  expect({solve, "--model", model}, 2, "no folder for the result");
  expect(Command(model, {"--target-gpu-layers", "3"}), 2, "--gpu-memory-gb");
  expect(Command(model, {"--hardware", "rtx1"}), 2, "known GPUs");
  expect(Command(model, {"--recall", "101"}), 2, "--recall");
  expect(Command(model, {"--tokens", "many"}), 2, "--tokens");
  expect(Command(root_ / "none.gguf"), 1, "none.gguf");
  expect(Command(model, {"--calibration", root_ / "none.txt"}), 1, "none.txt");
  expect(Command(model, {"--activation-dir", root_ / "none"}), 1, "none");
  // 6 % of this model's bytes are less than a predictor of the smallest rank.
  expect(Command(model, Quick({})), 1, "raise --predictor-budget");
  std::ofstream(root_ / "short.txt") << "Call me Ishmael.";
  expect(Command(model, {"--calibration", root_ / "short.txt"}), 1, "give a longer text");
  fs::remove(root_ / "short.txt");
  EXPECT_THAT(Beside(), IsEmpty());
}

TEST_F(SolveProgram, PowerInfersCountsTakeThePlaceOfARun) {
  const std::string model = Write({.activation = "relu"});  // of 2 layers
  for (const char* name : {"/activation_0.pt", "/activation_1.pt"}) {
    fs::create_directories(root_ / "activation");
    fs::copy_file(THERMOCLINE_SOURCE_DIR "/tests/golden/torch/fired_96.pt",
                  (root_ / "activation").string() + name);
  }
  const ChildResult result =
      RunChild(Command(model, {"--activation-dir", root_ / "activation"}), 60s);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(Made(), ElementsAre("plan.json", "profile.gguf", "report.json"));
  ExpectFits(model);
  const auto profile = ReadProfile(Out() + "/profile.gguf");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->layers[1].fired[2], 14u);
  EXPECT_FALSE(profile->has_thresholds());
  // Layers are then computed in mode exact: there is nothing to rule neurons out by.
  const ChildResult main = RunChild({ProgramPath("main"), "-m", model, "--predictor-path", Out(),
                                     "-p", "a", "-n", "2", "--threads", "2"},
                                    60s);
  EXPECT_EQ(main.exit_code, 0) << main.err;
  EXPECT_THAT(main.err, HasSubstr("sparsity exact"));
  fs::remove(root_ / "activation" / "activation_1.pt");
  const ChildResult missing =
      RunChild(Command(model, {"--activation-dir", root_ / "activation"}), 60s);
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("holds 1 files activation_N.pt"));
}

TEST_F(SolveProgram, ADryRunSaysWhatItWouldTake) {
  const ChildResult result = RunChild(
      {ProgramPath("solve"), "--dry-run", "--shape", "7b", "--type", "q4_k_m", "--threads", "16"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("minutes with 16 threads"));
  EXPECT_THAT(result.out, HasSubstr("mean rank 0"));  // SwiGLU: no predictor
  const ChildResult relu = RunChild({ProgramPath("solve"), "--dry-run", "--shape", "7b", "--type",
                                     "q4_k_m", "--hidden-activation", "relu"});
  EXPECT_THAT(relu.out, ::testing::Not(HasSubstr("mean rank 0")));
}

TEST_F(SolveProgram, TheScriptPassesFlagsAndExitCodesOn) {
  const std::string script = THERMOCLINE_SOURCE_DIR "/solver/solve.py";
  const std::string bin = THERMOCLINE_BIN_DIR;
  const std::vector<std::string> front = {"/usr/bin/env", "THERMOCLINE_BIN=" + bin, "python3",
                                          script};
  const auto with = [](std::vector<std::string> words, const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const ChildResult help = RunChild(with(front, {"--help"}));
  EXPECT_EQ(help.exit_code, 0) << help.err;
  EXPECT_THAT(help.out, HasSubstr("--target-gpu-layers"));
  EXPECT_EQ(RunChild(with(front, {"--nonsense"})).exit_code, 2);
  const ChildResult made =
      RunChild(with(front, {"--model", Write({}), "--output", Out(), "--target-gpu-layers", "1",
                            "--gpu-memory-gb", "16", "--no-predictor", "--tokens", "512"}),
               60s);
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(Made(), ElementsAre("plan.json", "profile.gguf", "report.json"));
  const ChildResult missing =
      RunChild({"/usr/bin/env", "THERMOCLINE_BIN=" + root_.string(), "python3", script, "--help"});
  EXPECT_EQ(missing.exit_code, 127);
  EXPECT_THAT(missing.err, HasSubstr("not built"));
}

}  // namespace
}  // namespace thermocline
