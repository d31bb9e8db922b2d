// main's command line: what is read, what excludes what, what is refused.
#include "coordinator/cli/main_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

struct Parsed {
  absl::Status status;
  MainOptions options;
};

Parsed Parse(std::vector<const char*> words) {
  Parsed parsed;
  FlagSet flags("main", "usage");
  AddMainFlags(&flags, &parsed.options);
  words.insert(words.begin(), "main");
  parsed.status = flags.Parse(static_cast<int>(words.size()), words.data());
  if (parsed.status.ok()) parsed.status = FinishMainOptions(flags, &parsed.options);
  return parsed;
}

std::string ErrorOf(std::vector<const char*> words) {
  return std::string(Parse(std::move(words)).status.message());
}

TEST(MainOptions, TheGuidesLineIsRead) {
  const Parsed parsed = Parse({"-m",
                               "m.gguf",
                               "--gpu-layers",
                               "20",
                               "--n-gpu-layers",
                               "19",
                               "-i",
                               "--ctx-size",
                               "4096",
                               "--temp",
                               "0.7",
                               "--top-p",
                               "0.9",
                               "--repeat-penalty",
                               "1.1",
                               "--color",
                               "--threads",
                               "8",
                               "-n",
                               "512"});
  ASSERT_TRUE(parsed.status.ok()) << parsed.status;
  const MainOptions& options = parsed.options;
  EXPECT_EQ(options.fleet.options.model_path, "m.gguf");
  EXPECT_EQ(options.fleet.options.n_gpu_layers, 19);
  EXPECT_EQ(options.fleet.options.n_ctx, 4096);
  EXPECT_EQ(options.fleet.options.n_threads, 8);
  EXPECT_EQ(options.Sampling().temperature(), 0.7);
  EXPECT_EQ(options.Sampling().top_p(), 0.9);
  EXPECT_EQ(options.Sampling().repeat_penalty(), 1.1);
  EXPECT_EQ(options.max_tokens, 512);
  EXPECT_TRUE(options.interactive && options.color);
}

TEST(MainOptions, EscapesAreReadInPromptsUnlessToldOtherwise) {
  EXPECT_EQ(Parse({"-m", "m", "-p", R"(a\nb)"}).options.prompt, "a\nb");
  EXPECT_EQ(Parse({"-m", "m", "-p", R"(a\nb)", "--no-escape"}).options.prompt, R"(a\nb)");
}

TEST(MainOptions, AFilesTextStaysAsItIsButForItsLastNewline) {
  const std::string path = ::testing::TempDir() + "main_options_prompt.txt";
  std::ofstream(path) << "a\\n\nb\n\n";
  EXPECT_EQ(Parse({"-m", "m", "-f", path.c_str()}).options.prompt, "a\\n\nb\n");
  EXPECT_EQ(Parse({"-m", "m", "-f", path.c_str(), "-p", "later wins"}).options.prompt,
            "later wins");
  std::remove(path.c_str());
  EXPECT_THAT(ErrorOf({"-m", "m", "-f", path.c_str()}), HasSubstr(path));
}

TEST(MainOptions, WithoutASeedOneIsPicked) {
  EXPECT_GE(Parse({"-m", "m"}).options.seed, 0);
  EXPECT_EQ(Parse({"-m", "m", "-s", "42"}).options.Sampling().seed(), 42);
}

TEST(MainOptions, AModelIsNeededUnlessACoordinatorHasOne) {
  EXPECT_THAT(ErrorOf({"-p", "x"}), HasSubstr("-m"));
  EXPECT_TRUE(Parse({"--coordinator", "127.0.0.1:1", "-p", "x"}).status.ok());
}

TEST(MainOptions, FlagsOfAnOwnFleetDoNotGoWithACoordinator) {
  for (const char* flag : {"-m", "-t", "--workers", "--plan", "--predictor-path"}) {
    EXPECT_THAT(ErrorOf({"--coordinator", "127.0.0.1:1", flag, "1"}), HasSubstr(flag));
  }
}

TEST(MainOptions, ACoordinatorIsAskedForOffOrExact) {
  const auto parse = [](const char* mode) {
    return Parse({"--coordinator", "127.0.0.1:1", "--sparsity", mode});
  };
  EXPECT_EQ(parse("off").options.sparsity, v1::SPARSITY_OFF);
  EXPECT_EQ(parse("exact").options.sparsity, v1::SPARSITY_EXACT);
  EXPECT_THAT(std::string(parse("predict").status.message()), HasSubstr("off or exact"));
  EXPECT_EQ(Parse({"-m", "m", "--sparsity", "off"}).options.sparsity, v1::SPARSITY_AS_PLANNED);
}

TEST(MainOptions, AModelOfTheEnvironmentDoesNotHinderACoordinator) {
  setenv("LLAMA_ARG_MODEL", "m.gguf", 1);
  EXPECT_EQ(ErrorOf({"--coordinator", "127.0.0.1:1", "-p", "x"}), "");
  EXPECT_THAT(ErrorOf({"--coordinator", "127.0.0.1:1", "-m", "m.gguf"}), HasSubstr("-m"));
  unsetenv("LLAMA_ARG_MODEL");
}

TEST(MainOptions, APlanLeavesNoChoiceOfWorkersAndThreads) {
  EXPECT_THAT(ErrorOf({"-m", "m", "--plan", "p", "-t", "2"}), HasSubstr("--threads"));
  EXPECT_THAT(ErrorOf({"--workers", "2", "-m", "m", "--plan", "p"}), HasSubstr("--workers"));
  EXPECT_EQ(ErrorOf({"-m", "m", "--plan", "p"}), "");
  setenv("LLAMA_ARG_THREADS", "2", 1);  // of runs without a plan
  EXPECT_EQ(ErrorOf({"-m", "m", "--plan", "p"}), "");
  unsetenv("LLAMA_ARG_THREADS");
}

TEST(MainOptions, FlagsThatAreNotHonouredAreRefusedWithAReason) {
  for (const char* flag : {"--tensor-split", "--mirostat", "--grammar", "--lora", "--prompt-cache",
                           "-np", "--rpc", "--numa", "-r", "--rope-freq-base"}) {
    const std::string error = ErrorOf({"-m", "m", flag, "1"});
    EXPECT_THAT(error, HasSubstr(flag));
    EXPECT_THAT(error, HasSubstr("not honoured"));
  }
  for (const char* flag : {"--mlock", "--list-devices", "-cnv", "--jinja", "-ins"}) {
    EXPECT_THAT(ErrorOf({"-m", "m", flag}), HasSubstr("not honoured"));
  }
}

TEST(MainOptions, PowerInfersFlagsAreTaken) {
  const auto parsed = Parse({"-m", "m", "--vram-budget", "2.5", "--reset-gpu-index",
                             "--disable-gpu-index", "--predictor-path", "p"});
  EXPECT_TRUE(parsed.status.ok()) << parsed.status;
  EXPECT_EQ(parsed.options.fleet.options.vram_budget_bytes, 2.5 * 1024 * 1024 * 1024);
  EXPECT_FALSE(parsed.options.fleet.options.splits_ffn);
  EXPECT_EQ(parsed.options.fleet.options.sparsity.predictor_path, "p");
  EXPECT_THAT(ErrorOf({"-m", "m", "--vram-budget", "0"}), HasSubstr("--gpu-device none"));
  EXPECT_THAT(ErrorOf({"-m", "m", "--plan", "p", "--vram-budget", "2"}), HasSubstr("--plan"));
  EXPECT_THAT(ErrorOf({"-m", "m", "--plan", "p", "--reset-gpu-index"}), HasSubstr("--plan"));
}

TEST(MainOptions, GpuLayersTakesNumbersAndWords) {
  EXPECT_EQ(Parse({"-m", "m", "-ngl", "all"}).options.fleet.options.n_gpu_layers, kAllLayers);
  EXPECT_EQ(Parse({"-m", "m", "-ngl", "auto"}).options.fleet.options.n_gpu_layers, kAutoLayers);
  EXPECT_EQ(Parse({"-m", "m", "-ngl", "-1"}).options.fleet.options.n_gpu_layers, kAutoLayers);
  EXPECT_THAT(ErrorOf({"-m", "m", "-ngl", "many"}), HasSubstr("number of layers"));
  EXPECT_FALSE(Parse({"-m", "m", "-ngl", "-2"}).status.ok());
}

TEST(MainOptions, TypesOfNumbersReachTheFleet) {
  const MainOptions options =
      Parse({"-m", "m", "--kv-type", "f32", "--activations", "f32", "--worker-timeout", "3"})
          .options;
  EXPECT_EQ(options.fleet.options.kv_type, "f32");
  EXPECT_TRUE(options.fleet.options.f32_activations);
  EXPECT_EQ(options.fleet.options.stall_timeout_ms, 3000);
  EXPECT_EQ(Parse({"-m", "m", "--memory_f32"}).options.fleet.options.kv_type, "f32");
}

}  // namespace
}  // namespace thermocline
