// Chunks of a text through a model without processes.
#include "coordinator/cli/scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

using ::testing::ElementsAre;

struct Row {
  int64_t position;
  int64_t top;
};

absl::StatusOr<std::vector<Row>> Score(testing::FakeStepper* stepper, int64_t max_rows,
                                       const std::vector<int32_t>& tokens) {
  std::vector<Row> rows;
  const absl::Status status =
      Scorer(stepper, max_rows).ScoreChunk(tokens, [&](int64_t position, const float* p) {
        const float* end = p + stepper->tokenizer().n_vocab();
        rows.push_back({position, std::max_element(p, end) - p});
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return rows;
}

// The first token, which BOS replaces, is not what the model wants.
std::vector<int32_t> Tokens(const std::string& text) {
  return testing::ByteTokenizer().Encode("X" + text, /*add_special=*/false, false);
}

TEST(Scorer, ScoresTheSecondHalfWithBosInFront) {
  testing::FakeStepper stepper("abcdefg", /*n_ctx=*/8, /*batch_size=*/8);
  const std::vector<int32_t> tokens = Tokens("abcdefg");
  const auto rows = Score(&stepper, /*max_rows=*/8, tokens);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 3u);
  for (size_t i = 0; i < rows->size(); ++i) {
    EXPECT_EQ((*rows)[i].position, static_cast<int64_t>(4 + i));
    EXPECT_EQ((*rows)[i].top, tokens[5 + i]);  // the token that follows
  }
  EXPECT_THAT(stepper.step_sizes, ElementsAre(4, 3));
}

TEST(Scorer, StepsKeepToTheBatchSizeAndToTheRowsOfLogits) {
  testing::FakeStepper stepper("abcdefghijklmno", /*n_ctx=*/16, /*batch_size=*/3);
  const auto rows = Score(&stepper, /*max_rows=*/2, Tokens("abcdefghijklmno"));
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(stepper.step_sizes, ElementsAre(3, 3, 2, 2, 2, 2, 1));
  EXPECT_EQ(rows->size(), 7u);
}

TEST(Scorer, AnErrorOfTheModelEndsIt) {
  testing::FakeStepper stepper("abc", 4, 4);
  stepper.before_step = [] { return absl::UnavailableError("worker 0 is lost"); };
  EXPECT_EQ(Score(&stepper, 4, Tokens("abc")).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace thermocline
