// The cost model's promise: within 25 % of every rate that it is for. And the guide's tables.
#include "solver/placement/published.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

TEST(Published, RatesArePredictedWithinAQuarter) {
  const absl::StatusOr<std::vector<PublishedRate>> rates = ComparePublished();
  ASSERT_TRUE(rates.ok()) << rates.status();
  int n_covered = 0;
  for (const PublishedRate& rate : *rates) {
    if (!rate.not_covered.empty()) continue;
    ++n_covered;
    EXPECT_GT(rate.ratio(), 0.75) << rate.engine << " " << rate.model << " " << rate.machine;
    EXPECT_LT(rate.ratio(), 1.25) << rate.engine << " " << rate.model << " " << rate.machine;
  }
  EXPECT_GE(n_covered, 10);
  std::printf("%s", PublishedTable(*rates).c_str());
}

TEST(GuideTables, AnswerEveryRow) {
  const std::string tables = GuideTables();
  for (const char* row :
       {"7B: 4 GB", "13B: 6 GB", "34B: 12 GB", "70B: 16 GB", "| 8 GB", "| 16 GB", "| 24 GB",
        "| 48 GB", "CPU only", "RTX 3090", "RTX 4090", "A100 40 GB", "A100 80 GB"}) {
    EXPECT_THAT(tables, ::testing::HasSubstr(row));
  }
}

}  // namespace
}  // namespace thermocline
