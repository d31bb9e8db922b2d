// What bench prints and how it reads lists.
#include "coordinator/cli/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "coordinator/cli/bench_options.h"
#include "coordinator/cli/bench_tests.h"
#include "tests/testing/fake_stepper.h"

namespace thermocline {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

BenchRow Row(int64_t n_prompt, int64_t n_gen) {
  return {.model = "m.gguf",
          .model_bytes = 2'000'000'000,
          .n_prompt = n_prompt,
          .n_gen = n_gen,
          .n_threads = 4,
          .n_workers = 2,
          .transport = "shm",
          .isa = "avx2",
          .sparsity = "off",
          .samples_ts = {30, 10, 20},
          .read_gbps = 40,
          .token_bytes = 1'500'000'000,
          .time_shares = {{"gate", 0.625}, {"other", 0.375}}};
}

TEST(BenchRow, MedianIsTheMiddle) {
  BenchRow row = Row(0, 8);
  EXPECT_EQ(row.MedianTs(), 20);
  row.samples_ts = {4, 1, 3, 2};
  EXPECT_EQ(row.MedianTs(), 2.5);
}

TEST(BenchRow, ShareIsBytesReadASecondOverBandwidth) {
  EXPECT_DOUBLE_EQ(Row(0, 8).BandwidthShare(), 20 * 1.5 / 40);
}

TEST(BenchJson, HasExactlyTheDocumentedKeys) {
  const auto json = nlohmann::json::parse(BenchJson({Row(512, 0), Row(0, 128)}));
  ASSERT_EQ(json.size(), 2u);
  for (const auto& row : json) {
    std::vector<std::string> keys;
    for (const auto& item : row.items()) keys.push_back(item.key());
    EXPECT_THAT(keys, UnorderedElementsAre(
                          "n_prompt", "n_gen", "n_threads", "n_workers", "transport", "isa",
                          "sparsity", "median_ts", "samples_ts", "read_gbps", "token_bytes",
                          "computed_share", "fired_share", "bandwidth_share", "time_shares"));
  }
  EXPECT_TRUE(json[0]["bandwidth_share"].is_null());
  EXPECT_DOUBLE_EQ(json[1]["bandwidth_share"], 0.75);
  EXPECT_EQ(json[1]["samples_ts"], (std::vector<double>{30, 10, 20}));
  EXPECT_EQ(json[0]["n_prompt"], 512);
  EXPECT_EQ(json[0]["n_gen"], 0);
}

TEST(BenchTable, ShowsMedianSpreadAndShare) {
  const std::string table = BenchTable({Row(512, 0), Row(0, 128)});
  EXPECT_THAT(table,
              HasSubstr("| off | pp512 | 20.00 (10.00 to 30.00) | 100.0 % | 1500.0 | 40.0 |  |\n"));
  EXPECT_THAT(
      table,
      HasSubstr("| off | tg128 | 20.00 (10.00 to 30.00) | 100.0 % | 1500.0 | 40.0 | 75.0 % |\n"));
}

TEST(BenchTimes, HasARowForEachDecodeTest) {
  EXPECT_EQ(BenchTimes({Row(512, 0)}), "");
  EXPECT_EQ(BenchTimes({Row(512, 0), Row(0, 128)}),
            "| us a token | sparsity | gate | other |\n| ---: | --- | ---: | ---: |\n"
            "| 50000 | off | 62.5 % | 37.5 % |\n");
}

TEST(BenchOptions, ListsAreReadWhole) {
  EXPECT_THAT(*ParseIntList("1,2,16", 1, 16), ElementsAre(1, 2, 16));
  EXPECT_THAT(*ParseIntList("7", 0, 9), ElementsAre(7));
  for (const char* bad : {"", "1,", ",1", "1,,2", "x", "1.5", "17", "1 2", "0"}) {
    EXPECT_FALSE(ParseIntList(bad, 1, 16).ok()) << bad;
  }
}

TEST(BenchOptions, TheContextHoldsTheLongestTest) {
  BenchOptions options;
  FlagSet flags("bench", "usage");
  AddBenchFlags(&flags, &options);
  options.fleet.options.model_path = "m.gguf";
  options.n_prompt = {64, 256};
  options.n_gen = {300};
  ASSERT_TRUE(FinishBenchOptions(flags, &options).ok());
  EXPECT_EQ(options.fleet.options.n_ctx, 300);
  options.n_gen = {301};
  EXPECT_FALSE(FinishBenchOptions(flags, &options).ok());
}

TEST(BenchOptions, APlanLeavesNoChoiceOfWorkersAndThreads) {
  for (const char* flag : {"-t", "--workers"}) {
    BenchOptions options;
    FlagSet flags("bench", "usage");
    AddBenchFlags(&flags, &options);
    const char* argv[] = {"bench", "-m", "m.gguf", "--plan", "plan.json", flag, "1,2"};
    ASSERT_TRUE(flags.Parse(7, argv).ok());
    EXPECT_THAT(std::string(FinishBenchOptions(flags, &options).message()), HasSubstr("--plan"));
  }
}

TEST(BenchOptions, EveryFlagOfTheTableIsKnownOnce) {
  BenchOptions options;
  FlagSet flags("bench", "usage");
  AddBenchFlags(&flags, &options);
  const char* argv[] = {"bench", "-m",          "m.gguf",   "-p", "16,32", "-n",
                        "0",     "--transport", "shm,grpc", "-o", "json"};
  ASSERT_TRUE(flags.Parse(11, argv).ok());
  EXPECT_THAT(options.n_prompt, ElementsAre(16, 32));
  EXPECT_THAT(options.transports, ElementsAre("shm", "grpc"));
  const char* bad[] = {"bench", "--transport", "shm,tcp"};
  EXPECT_THAT(std::string(flags.Parse(3, bad).message()), HasSubstr("tcp"));
}

TEST(BenchTests, PrefillRunsInStepsOfTheBatchSize) {
  testing::FakeStepper stepper("", /*n_ctx=*/32, /*batch_size=*/8);
  int n_between = 0;
  const auto between = [&] { return ++n_between, absl::OkStatus(); };
  const auto samples = BenchTests(&stepper, between).Prefill(20, /*n_repeats=*/2);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 2u);
  EXPECT_EQ(n_between, 3);                                                  // around each repeat
  EXPECT_THAT(stepper.step_sizes, ElementsAre(8, 8, 4, 8, 8, 4, 8, 8, 4));  // the first warms up
}

TEST(BenchTests, DecodeRunsStepsOfOneToken) {
  testing::FakeStepper stepper("", /*n_ctx=*/32, /*batch_size=*/8);
  int n_between = 0;
  const auto between = [&] { return ++n_between, absl::OkStatus(); };
  const auto samples = BenchTests(&stepper, between).Decode(16, /*n_repeats=*/3);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 3u);
  EXPECT_EQ(n_between, 4);
  EXPECT_THAT(stepper.step_sizes, Each(1));
  EXPECT_EQ(stepper.step_sizes.size(), 8u + 3 * 16);
}

}  // namespace
}  // namespace thermocline
