// What a command line means: spellings, values that begin with '-', environment, errors, --help.
#include "common/util/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <sstream>

namespace thermocline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() {
    flags_.Group("Model");
    flags_.String({"-m", "--model"}, "FILE", &model_, "the model file");
    flags_.Int({"-c", "--ctx-size"}, "N", &ctx_, 0, 1 << 20, "context size in tokens");
    flags_.Int({"-ngl", "--gpu-layers", "--n-gpu-layers"}, "N", &layers_, -1, 1000,
               "layers on GPUs");
    flags_.BoolOff({"--no-mmap"}, &mmap_, "do not map");
    flags_.Group("Sampling");
    flags_.Int({"-n", "--predict", "--n-predict"}, "N", &n_, -2, 1000000, "tokens to write");
    flags_.Float({"--temp"}, "T", &temp_, -100, 100, "temperature");
    flags_.String({"-p", "--prompt"}, "TEXT", &prompt_, "the prompt");
    flags_.Bool({"--color"}, &color_, "colour");
    flags_.Choice({"--transport"}, {"auto", "shm", "grpc"}, &transport_, "how bytes travel");
    flags_.Custom(
        {"--even"}, "N",
        [](const std::string& text) {
          return text.back() % 2 == 0 ? absl::OkStatus() : absl::InvalidArgumentError("odd");
        },
        "an even number");
    flags_.Refused({"--mlock"}, false, "shards are in anonymous memory");
    flags_.Refused({"-md", "--model-draft"}, true, "there is no speculation");
  }
  ~FlagsTest() override {
    for (const char* name :
         {"CTX_SIZE", "N_GPU_LAYERS", "COLOR", "NO_MMAP", "MLOCK", "MODEL_DRAFT"}) {
      unsetenv((std::string("LLAMA_ARG_") + name).c_str());
    }
  }

  absl::Status Parse(std::vector<const char*> words) {
    words.insert(words.begin(), "main");
    return flags_.Parse(static_cast<int>(words.size()), words.data());
  }
  std::string Error(const std::vector<const char*>& words) {
    const absl::Status status = Parse(words);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message().data(), status.message().size());
  }

  std::string model_ = "default.gguf", prompt_, transport_ = "auto";
  int64_t ctx_ = 512, layers_ = 0, n_ = -1;
  double temp_ = 0.8;
  bool color_ = false, mmap_ = true;
  FlagSet flags_{"main", "usage: main -m FILE"};
};

TEST_F(FlagsTest, AllSpellingsOfAFlagAreOne) {
  ASSERT_TRUE(Parse({"--ctx_size", "7", "--n-gpu-layers", "3", "-m", "x"}).ok());
  EXPECT_EQ(ctx_, 7);
  EXPECT_EQ(layers_, 3);
  EXPECT_EQ(model_, "x");
  EXPECT_TRUE(flags_.IsSet("-ngl"));
  EXPECT_TRUE(flags_.IsSet("--ctx-size"));
  EXPECT_FALSE(flags_.IsSet("--temp"));
}

TEST_F(FlagsTest, LaterFlagWins) {
  ASSERT_TRUE(Parse({"--gpu-layers", "20", "--n-gpu-layers", "21", "-ngl", "22"}).ok());
  EXPECT_EQ(layers_, 22);
}

TEST_F(FlagsTest, NegativeNumbersAreValues) {
  ASSERT_TRUE(Parse({"-n", "-1", "-ngl", "-1", "--temp", "-0.5"}).ok());
  EXPECT_EQ(n_, -1);
  EXPECT_EQ(layers_, -1);
  EXPECT_EQ(temp_, -0.5);
}

TEST_F(FlagsTest, EqualsSignJoinsFlagAndValue) {
  ASSERT_TRUE(Parse({"--temp=1.5", "-n=4", "--prompt=a=b", "--color=false", "--model="}).ok());
  EXPECT_EQ(temp_, 1.5);
  EXPECT_EQ(n_, 4);
  EXPECT_EQ(prompt_, "a=b");
  EXPECT_FALSE(color_);
  EXPECT_EQ(model_, "");
}

TEST_F(FlagsTest, ValueMayBeginWithADashUnlessItIsAKnownFlag) {
  ASSERT_TRUE(Parse({"-p", "- a list", "-m", "-"}).ok());
  EXPECT_EQ(prompt_, "- a list");
  EXPECT_EQ(model_, "-");
  EXPECT_THAT(Error({"-p", "--color"}),
              AllOf(HasSubstr("-p: value missing"), HasSubstr("-p=--color")));
  ASSERT_TRUE(Parse({"-p=--color"}).ok());
  EXPECT_EQ(prompt_, "--color");
  EXPECT_FALSE(color_);
}

TEST_F(FlagsTest, BareFlagsSetAndClear) {
  ASSERT_TRUE(Parse({"--color", "--no-mmap"}).ok());
  EXPECT_TRUE(color_);
  EXPECT_FALSE(mmap_);
}

TEST_F(FlagsTest, UnknownFlagNamesTheNearest) {
  EXPECT_THAT(Error({"--tmep", "1"}), AllOf(HasSubstr("--tmep"), HasSubstr("is --temp ")));
  EXPECT_THAT(Error({"--temperature", "1"}), HasSubstr("is --temp "));
  EXPECT_THAT(Error({"--n_gpu_layer=1"}), HasSubstr("is --n-gpu-layers "));
  EXPECT_THAT(Error({"--mloc"}), Not(HasSubstr("--mlock")));
}

TEST_F(FlagsTest, EachBadValueIsNamedWithWhatIsAllowed) {
  EXPECT_THAT(Error({"-n"}), HasSubstr("-n: value missing (-n N)"));
  EXPECT_THAT(Error({"-n", "1.5"}), HasSubstr("'1.5' is not a whole number"));
  EXPECT_THAT(Error({"-n", ""}), HasSubstr("'' is not a whole number"));
  EXPECT_THAT(Error({"-n", "99999999999999999999"}), HasSubstr("from -2 to 1000000"));
  EXPECT_THAT(Error({"-n", "-3"}),
              HasSubstr("-n: -3 is out of range: it must be from -2 to 1000000"));
  EXPECT_THAT(Error({"--temp", "warm"}), HasSubstr("--temp: 'warm' is not a number"));
  EXPECT_THAT(Error({"--temp", "nan"}), HasSubstr("not a number"));
  EXPECT_THAT(Error({"--temp", "inf"}), HasSubstr("out of range"));
  EXPECT_THAT(Error({"--transport", "pigeon"}),
              HasSubstr("'pigeon' is not one of auto, shm, grpc"));
  EXPECT_THAT(Error({"--color=maybe"}), HasSubstr("--color: 'maybe'"));
  EXPECT_THAT(Error({"--even", "3"}), HasSubstr("--even: odd"));
}

TEST_F(FlagsTest, RefusedFlagSaysItsReason) {
  EXPECT_THAT(Error({"--mlock"}), AllOf(HasSubstr("--mlock"), HasSubstr("anonymous memory")));
  EXPECT_THAT(Error({"-md", "x"}), AllOf(HasSubstr("-md"), HasSubstr("no speculation")));
}

TEST_F(FlagsTest, StrayWordIsAnError) {
  EXPECT_THAT(Error({"-n", "1", "hello"}), HasSubstr("stray word 'hello'"));
  EXPECT_THAT(Error({"-"}), HasSubstr("stray word '-'"));
}

TEST_F(FlagsTest, EnvironmentSetsWhatTheCommandLineDoesNot) {
  setenv("LLAMA_ARG_CTX_SIZE", "99", 1);
  setenv("LLAMA_ARG_N_GPU_LAYERS", "-1", 1);
  setenv("LLAMA_ARG_COLOR", "on", 1);
  setenv("LLAMA_ARG_NO_MMAP", "1", 1);
  ASSERT_TRUE(Parse({"-ngl", "5"}).ok());
  EXPECT_EQ(ctx_, 99);
  EXPECT_EQ(layers_, 5);
  EXPECT_TRUE(color_);
  EXPECT_FALSE(mmap_);
  EXPECT_TRUE(flags_.IsSet("-c"));
  EXPECT_FALSE(flags_.IsOnCommandLine("-c"));
  EXPECT_TRUE(flags_.IsOnCommandLine("--n-gpu-layers"));
}

TEST_F(FlagsTest, BadEnvironmentNamesTheVariable) {
  setenv("LLAMA_ARG_CTX_SIZE", "many", 1);
  EXPECT_THAT(Error({}), AllOf(HasSubstr("LLAMA_ARG_CTX_SIZE"), HasSubstr("'many'")));
}

TEST_F(FlagsTest, EnvironmentOfARefusedFlagIsRefusedUnlessItIsOff) {
  setenv("LLAMA_ARG_MLOCK", "0", 1);
  EXPECT_TRUE(Parse({}).ok());
  setenv("LLAMA_ARG_MLOCK", "1", 1);
  EXPECT_THAT(Error({}), AllOf(HasSubstr("LLAMA_ARG_MLOCK"), HasSubstr("anonymous memory")));
  unsetenv("LLAMA_ARG_MLOCK");
  setenv("LLAMA_ARG_MODEL_DRAFT", "0", 1);
  EXPECT_THAT(Error({}), HasSubstr("LLAMA_ARG_MODEL_DRAFT"));
}

TEST_F(FlagsTest, EmptyVariableIsAsGoodAsNone) {
  setenv("LLAMA_ARG_CTX_SIZE", "", 1);
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_EQ(ctx_, 512);
  EXPECT_FALSE(flags_.IsSet("-c"));
}

TEST_F(FlagsTest, HelpIsFoundWhateverElseIsWrong) {
  setenv("LLAMA_ARG_CTX_SIZE", "many", 1);
  ASSERT_TRUE(Parse({"--bogus", "-h"}).ok());
  EXPECT_TRUE(flags_.help());
  EXPECT_FALSE(flags_.version());
}

TEST_F(FlagsTest, VersionIsAFlag) {
  ASSERT_TRUE(Parse({"--version"}).ok());
  EXPECT_TRUE(flags_.version());
  EXPECT_FALSE(flags_.help());
}

TEST_F(FlagsTest, HelpIsGroupedAlignedAndNarrow) {
  flags_.Bool({"--verbose"}, &color_, std::string(40, 'a') + " " + std::string(40, 'b') + " end");
  flags_.Bool({"--a-flag-with-a-name-so-long-that-help-starts-below"}, &color_, "right here");
  const std::string help = flags_.Help();
  EXPECT_EQ(help.find("usage: main -m FILE\n"), 0u);
  EXPECT_LT(help.find("\nModel:\n"), help.find("--ctx-size N"));
  EXPECT_LT(help.find("--ctx-size N"), help.find("\nSampling:\n"));
  EXPECT_THAT(help, HasSubstr("(default: 512)"));
  EXPECT_THAT(help, HasSubstr("(default: 0.8)"));
  EXPECT_THAT(help, HasSubstr("--transport auto|shm|grpc"));
  EXPECT_THAT(help, HasSubstr("refused here"));
  EXPECT_THAT(help, HasSubstr("--mlock"));
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100u) << line;
    EXPECT_EQ(line.find_last_not_of(' ') + 1, line.size()) << "trailing space: " << line;
  }
  const auto column = [&](const std::string& text) {
    const size_t at = help.find(text);
    return at - help.rfind('\n', at) - 1;
  };
  EXPECT_EQ(column("the model file"), column("temperature"));
  EXPECT_EQ(column("the model file"), column("right here"));
  EXPECT_EQ(column("the model file"), column(std::string(40, 'b')));
}

}  // namespace
}  // namespace thermocline
