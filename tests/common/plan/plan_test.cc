#include "common/plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "solver/placement/dense_split.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 4;
  config.d_model = 64;
  config.d_ff = 160;
  config.n_heads = 8;
  config.n_kv_heads = 4;
  config.d_head = 32;
  config.n_vocab = 1000;
  return config;
}

Plan GoodPlan() { return *SplitDense(Config(), "hash", {{0, 2, ""}, {1, 1, "host:1"}}, {2, 1}); }

std::string ErrorOf(const Plan& plan) {
  return std::string(CheckPlan(plan, Config(), "hash").message());
}

TEST(Plan, SurvivesJson) {
  Plan plan = GoodPlan();
  plan.layers[2].neurons[0] = {{0, 32}, {64, 160}};
  plan.layers[2].neurons[1] = {{32, 64}};
  ASSERT_TRUE(CheckPlan(plan, Config(), "hash").ok());
  const absl::StatusOr<Plan> read = PlanFromJson(PlanToJson(plan));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, plan);
}

TEST(Plan, EqualLayersShareOneEntry) {
  const std::string json = PlanToJson(GoodPlan());
  size_t entries = 0;
  for (size_t at = 0; (at = json.find("kv_heads", at)) != std::string::npos; ++at) ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST(Plan, IsReadBackFromItsFileWhichReplacesAnOlderOne) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("plan_test." + std::to_string(getpid()));
  std::ofstream(path) << "old";
  ASSERT_TRUE(WritePlan(GoodPlan(), path).ok());
  const absl::StatusOr<Plan> read = ReadPlan(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, GoodPlan());
  EXPECT_THAT(std::string(ReadPlan(path).status().message()), HasSubstr(path));
  EXPECT_FALSE(WritePlan(GoodPlan(), "/no/such/folder/plan.json").ok());
}

TEST(Plan, OfAnotherModelIsRefusedWithBothHashes) {
  Plan plan = GoodPlan();
  plan.model_hash = "other";
  EXPECT_THAT(ErrorOf(plan), HasSubstr("other"));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("hash"));
}

TEST(Plan, MissingNeuronsAreNamed) {
  Plan plan = GoodPlan();
  plan.layers[1].neurons[0] = {{0, 32}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("layer 1: neurons [32, "));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("belongs to no rank"));
}

TEST(Plan, DoubledNeuronsAreNamed) {
  Plan plan = GoodPlan();
  plan.layers[3].neurons[1] = {{64, 160}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("layer 3: neurons"));
  EXPECT_THAT(ErrorOf(plan), HasSubstr("another rank, too"));
}

TEST(Plan, CutsInsideAQuantizationBlockAreRefused) {
  Plan plan = GoodPlan();
  plan.layers[0].neurons = {{{0, 40}}, {{40, 160}}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("multiple of 32"));
}

TEST(Plan, RangesOutsideTheModelAreRefused) {
  Plan plan = GoodPlan();
  plan.vocab[1].end = 1001;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("vocab"));
  plan = GoodPlan();
  plan.layers[0].kv_heads = {{-1, 2}, {2, 4}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("kv_heads"));
  plan = GoodPlan();
  plan.layers[0].kv_heads = {{0, 2}, {4, 2}};
  EXPECT_THAT(ErrorOf(plan), HasSubstr("kv_heads"));
}

TEST(Plan, WithoutLayersRanksOrThreadsIsRefused) {
  Plan plan = GoodPlan();
  plan.layers.pop_back();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("3 layers"));
  plan = GoodPlan();
  plan.ranks.clear();
  EXPECT_THAT(ErrorOf(plan), HasSubstr("ranks"));
  plan = GoodPlan();
  plan.ranks[1].n_threads = 0;
  EXPECT_THAT(ErrorOf(plan), HasSubstr("rank 1"));
}

TEST(PlanJson, DamageIsNamed) {
  const std::string good = PlanToJson(GoodPlan());
  EXPECT_THAT(std::string(PlanFromJson("{").status().message()), HasSubstr("JSON"));
  EXPECT_THAT(std::string(PlanFromJson("[]").status().message()), HasSubstr("JSON object"));
  for (const std::string key : {"version", "model", "ranks", "threads", "kv_heads", "vocab"}) {
    std::string damaged = good;
    damaged.replace(damaged.find("\"" + key + "\""), key.size() + 2, "\"nothing\"");
    EXPECT_THAT(std::string(PlanFromJson(damaged).status().message()), HasSubstr(key));
  }
  std::string huge = good;
  huge.replace(huge.find("1000"), 4, "18446744073709551615");
  EXPECT_THAT(std::string(PlanFromJson(huge).status().message()), HasSubstr("vocab"));
}

}  // namespace
}  // namespace thermocline
