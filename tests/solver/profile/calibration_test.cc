// Windows of a text, and the locality of a profile.
#include "solver/profile/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "solver/profile/cost.h"
#include "solver/profile/plot.h"
#include "tests/testing/fake_stepper.h"

namespace thermocline::testing {
namespace {

using ::testing::HasSubstr;

std::string Noise(int64_t n) {
  std::mt19937 random(5);
  std::string text;
  for (int64_t i = 0; i < n; ++i) text += static_cast<char>('a' + random() % 26);
  return text;
}

TEST(Calibration, WindowsBeginWithBosAndAreSpreadOverTheText) {
  const ByteTokenizer tokenizer;
  const std::string text = Noise(1000);
  const auto cut = CutCalibration(text, "text", tokenizer, {.n_window = 50, .n_tokens = 200});
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ(cut->windows.size(), 4u);
  EXPECT_EQ(cut->n_tokens(), 200);
  EXPECT_EQ(cut->text_hash.size(), 64u);
  const std::vector<int32_t> all = tokenizer.Encode(text, false, false);
  std::set<int64_t> begins;
  for (const std::vector<int32_t>& window : cut->windows) {
    ASSERT_EQ(window.size(), 50u);
    EXPECT_EQ(window[0], tokenizer.bos());
    const auto at = std::search(all.begin(), all.end(), window.begin() + 1, window.end());
    ASSERT_NE(at, all.end());
    begins.insert(at - all.begin());
  }
  EXPECT_THAT(begins, ::testing::ElementsAre(0, 317, 634, 951));
}

TEST(Calibration, TheSeedChoosesTheOrderAlone) {
  const ByteTokenizer tokenizer;
  const std::string text = Noise(2000);
  CalibrationOptions options = {.n_window = 50, .n_tokens = 1000};
  const auto first = CutCalibration(text, "text", tokenizer, options);
  const auto again = CutCalibration(text, "text", tokenizer, options);
  options.seed = 2;
  const auto other = CutCalibration(text, "text", tokenizer, options);
  ASSERT_TRUE(first.ok() && again.ok() && other.ok());
  EXPECT_EQ(first->windows, again->windows);
  EXPECT_NE(first->windows, other->windows);
  EXPECT_THAT(first->windows, ::testing::UnorderedElementsAreArray(other->windows));
}

TEST(Calibration, ATextTooShortForAWindowIsRefused) {
  const ByteTokenizer tokenizer;
  const auto cut = CutCalibration("short", "my.txt", tokenizer, {.n_window = 50});
  EXPECT_TRUE(absl::IsInvalidArgument(cut.status()));
  EXPECT_THAT(std::string(cut.status().message()), HasSubstr("my.txt has 5 tokens"));
}

TEST(Plot, TheHottestNeuronsHaveTheirShareOfTheFirings) {
  const LayerProfile layer = {.fired = {0, 10, 60, 30}, .sketch = {}, .magnitude = {}};
  EXPECT_DOUBLE_EQ(FiringsOfHottest(layer, 0), 0);
  EXPECT_DOUBLE_EQ(FiringsOfHottest(layer, 0.25), 0.6);
  EXPECT_DOUBLE_EQ(FiringsOfHottest(layer, 0.5), 0.9);
  EXPECT_DOUBLE_EQ(FiringsOfHottest(layer, 1), 1);
  const Profile profile = {
      .model_hash = "", .text_hash = "", .n_tokens = 60, .recall = 0, .layers = {layer, layer}};
  const std::string svg = LocalitySvg(profile, "a<b");
  EXPECT_THAT(svg, HasSubstr("a&lt;b"));
  EXPECT_THAT(svg, HasSubstr("layer 1: 50 %"));  // two neurons of four have 80 %
}

TEST(Cost, OperationsGrowAsTheWorkDoes) {
  const auto shape = DescribeShape({.shape = "7b", .type = "q4_k_m"});
  ASSERT_TRUE(shape.ok()) << shape.status();
  SolvePass pass = {
      .n_tokens = 1024, .n_samples = 1024, .n_runs = 1, .mean_rank = 0, .n_epochs = 3};
  const SolveCost once = CountOperations(*shape, pass);
  // Two operations for each of 6.48e9 weights in layers and each token.
  EXPECT_NEAR(once.forward / (2 * 6.48e9 * 1024), 1, 0.01);
  EXPECT_EQ(once.training, 0);
  pass.n_runs = 3;
  EXPECT_DOUBLE_EQ(CountOperations(*shape, pass).forward, 3 * once.forward);
  pass.mean_rank = 512;
  const SolveCost trained = CountOperations(*shape, pass);
  EXPECT_GT(trained.training, 0);
  EXPECT_GT(trained.ranks_alone, 0);
  EXPECT_DOUBLE_EQ(trained.forward_s(1), 4 * trained.forward_s(4));
  EXPECT_LT(trained.training_s(1), 4 * trained.training_s(4));  // some of it runs on one thread
}

}  // namespace
}  // namespace thermocline::testing
