// build/bin/plan on files: what it writes, prints and refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/gguf/gguf_file.h"
#include "common/plan/plan.h"
#include "tests/testing/subprocess.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using testing::Child;
using testing::ChildResult;
using ::testing::HasSubstr;

class PlanProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("plan_program." + std::to_string(getpid()));
    std::filesystem::create_directories(folder_ / "predictor");
    testing::TinyLlama().Builder().WriteTo(Path("model.gguf"));
    const auto file = GgufFile::Open(Path("model.gguf"));
    ASSERT_TRUE(file.ok());
    profile_.model_hash = (*file)->ContentHash();
    profile_.text_hash = std::string(64, 'a');
    profile_.n_tokens = 1000;
    profile_.recall = 0.98f;
    LayerProfile layer;
    for (uint32_t i = 0; i < 96; ++i) layer.fired.push_back((i * 37) % 96);
    for (Selection& sketch : layer.sketch) sketch = {0.1f, 0.3f, 0.98f, 0.99f};
    profile_.layers.assign(2, layer);
    const absl::Status status = WriteProfile(profile_, Path("predictor/profile.gguf"));
    ASSERT_TRUE(status.ok()) << status;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }
  ChildResult Run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), std::string(THERMOCLINE_BIN_DIR) + "/plan");
    return Child(arguments).Wait(std::chrono::seconds(60));
  }
  void ExpectError(const std::vector<std::string>& arguments, int exit_code,
                   const std::string& expected) const {
    const ChildResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_THAT(result.err, ::testing::StartsWith("plan: error: "));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1);
    EXPECT_EQ(result.out, "");
  }

  std::filesystem::path folder_;
  Profile profile_;
};

constexpr char kHardware[] = "gpu(1GiB,900GB/s)+(4GiB,50GB/s)";

TEST_F(PlanProgram, WritesAPlanThatItsModelAndProfileAccept) {
  const ChildResult result = Run({"-m", Path("model.gguf"), "--predictor-path", Path("predictor"),
                                  "--hardware", kHardware, "--vram-budget", "0.5004", "-c", "128",
                                  "-o", Path("plan.json"), "--svg", Path("p.svg")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("tokens/s"));
  EXPECT_THAT(result.out, HasSubstr("sketch"));
  const absl::StatusOr<Plan> plan = ReadPlan(Path("plan.json"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto file = GgufFile::Open(Path("model.gguf"));
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(**file);
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(CheckPlan(*plan, *config, profile_.model_hash, &profile_).ok())
      << CheckPlan(*plan, *config, profile_.model_hash, &profile_);
  EXPECT_EQ(plan->ranks[0].kind, RankKind::kGpu);
  EXPECT_GT(plan->predicted_us, 0);
  EXPECT_TRUE(std::filesystem::exists(Path("p.svg")));
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::Not(HasSubstr("tmp")));
  }
}

TEST_F(PlanProgram, WithoutAProfileSplitsByLayersInFileOrder) {
  const ChildResult result = Run({"-m", Path("model.gguf"), "--hardware", "2x(4GiB,50GB/s)", "-o",
                                  Path("plan.json"), "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "");
  const absl::StatusOr<Plan> plan = ReadPlan(Path("plan.json"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->profile_hash, "");
  EXPECT_EQ(plan->layers[0].mode, Sparsity::kExact);
}

TEST_F(PlanProgram, MeasuresThisMachineWhenNoneIsDescribed) {
  const ChildResult result = Run({"-m", Path("model.gguf"), "-t", "1", "--dry-run"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("cpu"));
}

TEST_F(PlanProgram, DryRunsDescribedModelsWithoutFiles) {
  const ChildResult result =
      Run({"--dry-run", "--shape", "70b", "--type", "q4_k_m", "--hidden-activation", "relu",
           "--hardware", "rtx4090+2x(64GiB,100GB/s)"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("70b q4_k_m (ReLU variant)"));
  EXPECT_THAT(result.out,
              ::testing::Not(HasSubstr("stream")));  // how fast CPUs multiply is unknown
}

TEST_F(PlanProgram, SaysFromHowManyTokensOnPromptsStream) {
  const ChildResult result =
      Run({"-m", Path("model.gguf"), "--gpu-layers", "1", "--hardware",
           "gpu(1GiB,900GB/s)+(4GiB,50GB/s,macs=100GMAC/s,pack=2GB/s)", "-o", Path("plan.json")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const absl::StatusOr<Plan> plan = ReadPlan(Path("plan.json"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GE(plan->stream_tokens, kMinStreamTokens);
  EXPECT_THAT(result.out,
              HasSubstr("prompts of " + std::to_string(plan->stream_tokens) + " tokens and more"));
}

TEST_F(PlanProgram, RefusesWhatCannotBe) {
  const std::string model = Path("model.gguf");
  ExpectError({}, 2, "-m FILE.gguf");
  ExpectError({"-m", model, "--shape", "7b"}, 2, "either");
  ExpectError({"--shape", "7b", "-o", "x.json"}, 2, "leave -o out");
  ExpectError({"--shape", "7b", "--profile", "x"}, 2, "belongs to a file");
  ExpectError({"-m", model, "--frobnicate"}, 2, "--frobnicate");
  ExpectError({"-m", model, "--gpu-layers", "-7"}, 2, "'auto' or 'all'");
  ExpectError({"-m", model, "--hardware", "rtx4091"}, 1, "rtx4091");
  ExpectError({"-m", model, "--hardware", kHardware, "--sparsity", "predict"}, 1, "a predictor");
  ExpectError({"-m", model, "--hardware", "(1GiB,50GB/s)", "--gpu-layers", "1"}, 1, "no GPU");
  ExpectError({"-m", model, "--hardware", "(1GiB,50GB/s)"}, 1, "GiB");
  ExpectError({"-m", Path("none.gguf"), "--hardware", kHardware}, 1, "none.gguf");
  ExpectError({"-m", model, "--hardware", kHardware, "-o", Path("no/such/plan.json")}, 1,
              "no/such");
  ExpectError({"-m", model, "--hardware", kHardware, "--predictor-path", Path("none")}, 1, "none");
}

TEST_F(PlanProgram, RefusesAProfileOfAnotherModel) {
  testing::TinyLlama other;
  other.seed = 2;
  other.Builder().WriteTo(Path("other.gguf"));
  ExpectError(
      {"-m", Path("other.gguf"), "--hardware", kHardware, "--predictor-path", Path("predictor")}, 1,
      profile_.model_hash);
}

}  // namespace
}  // namespace thermocline
