// build/bin/perplexity on models whose perplexity is known (NAME.expected.gguf): 40 chunks of 512
// tokens of heldout.txt beside them. Minutes of work, for tests/run_large; skipped without the
// files.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/integration/programs.h"

namespace thermocline {
namespace {

constexpr std::chrono::minutes kLimit(30);

// NAN if the program fails or does not say it.
double MeasuredPerplexity(const std::vector<std::string>& words) {
  const testing::ChildResult result = testing::RunChild(words, kLimit);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string before = "Final estimate: PPL = ";
  const size_t begin = result.out.rfind(before);
  return begin == std::string::npos ? NAN : std::stod(result.out.substr(begin + before.size()));
}

class KnownPerplexity : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string path = testing::FindModel(GetParam());
    text_ = testing::FindModel("heldout.txt");
    if ((path.empty() || text_.empty()) && !testing::RequiresModels()) {
      GTEST_SKIP() << "needs " << GetParam()
                   << " and heldout.txt; THERMOCLINE_MODELS can name their folder";
    }
    ASSERT_FALSE(path.empty()) << GetParam() << " is not in THERMOCLINE_MODELS";
    ASSERT_FALSE(text_.empty()) << "heldout.txt is not in THERMOCLINE_MODELS";
    auto model = testing::LoadExpectedModel(path);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  // bound: of the relative distance from the expected one.
  void Check(const std::vector<std::string>& more, double bound) {
    std::vector<std::string> words = {ProgramPath("perplexity"),
                                      "-m",
                                      model_.path,
                                      "-f",
                                      text_,
                                      "-c",
                                      "512",
                                      "--chunks",
                                      "40",
                                      "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    const double expected = model_.perplexity_ctx512_chunks40;
    const double measured = MeasuredPerplexity(words);
    std::printf("  %s: perplexity %.4f, expected %.4f, %+.4f %%\n", GetParam(), measured, expected,
                (measured / expected - 1) * 100);
    EXPECT_LE(std::abs(measured / expected - 1), bound);  // false for NAN
  }

  std::string text_;
  testing::ExpectedModel model_;
};

TEST_P(KnownPerplexity, IsMetWithInt8Activations) { Check({}, 0.003); }

TEST_P(KnownPerplexity, IsMetCloselyInF32) {
  Check({"--activations", "f32", "--kv-type", "f32"}, 0.0002);
}

INSTANTIATE_TEST_SUITE_P(Models, KnownPerplexity,
                         ::testing::Values("reluctant-13m-q8_0.gguf", "reluctant-13m-f16.gguf",
                                           "reluctant-110m-q8_0.gguf"),
                         [](const auto& info) { return testing::TestNameOf(info.param); });

}  // namespace
}  // namespace thermocline
