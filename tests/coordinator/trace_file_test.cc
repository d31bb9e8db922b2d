// Spans as a file of events: its form, and clocks of other hosts.
#include "coordinator/engine/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fmt/format.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kStart = 7'000'000'000'000;  // of the coordinator's clock, ns

// A step of 100 us every 200 us, posted 10 us after its begin.
std::vector<TraceSpan> CoordinatorSteps(uint64_t first, uint64_t last) {
  std::vector<TraceSpan> spans;
  for (uint64_t step = first; step <= last; ++step) {
    const int64_t begin = kStart + static_cast<int64_t>(step) * 200'000;
    spans.push_back({begin, begin + 100'000, step, -1, TraceOp::kStep});
    spans.push_back({begin + 10'000, begin + 100'000, step, -1, TraceOp::kRun});
  }
  return spans;
}

// Steps of 80 us on a clock that is elsewhere, and slow: 190 us of it are 200.
std::vector<TraceSpan> RankSteps(uint64_t first, uint64_t last) {
  std::vector<TraceSpan> spans;
  for (uint64_t step = first; step <= last; ++step) {
    const int64_t begin = 5'000 + static_cast<int64_t>(step) * 190'000;
    spans.push_back({begin, begin + 80'000, step, -1, TraceOp::kStep});
    spans.push_back({begin, begin + 30'500, step, 4, TraceOp::kGate});
    spans.push_back({begin + 30'500, begin + 80'000, step, 4, TraceOp::kWait});
  }
  return spans;
}

class TraceFile : public ::testing::Test {
 protected:
  ~TraceFile() override { std::filesystem::remove(path_); }
  // Events that are spans, of one process.
  std::vector<nlohmann::json> Write(const std::vector<TraceSpan>& coordinator,
                                    std::vector<RankTrace> ranks, int pid) {
    const absl::Status status = WriteTrace(path_, coordinator, std::move(ranks));
    EXPECT_TRUE(status.ok()) << status;
    const auto file = nlohmann::json::parse(std::ifstream(path_), nullptr, false);
    EXPECT_TRUE(file.is_object());
    std::vector<nlohmann::json> spans;
    for (const nlohmann::json& event : file["traceEvents"]) {
      if (event["pid"] == pid && event["ph"] == "X") spans.push_back(event);
      if (event["name"] == "process_name" && event["pid"] == pid) name_ = event["args"]["name"];
    }
    return spans;
  }

  const std::string path_ = ::testing::TempDir() + fmt::format("trace_file.{}.json", getpid());
  std::string name_;
};

TEST_F(TraceFile, ASpanHasItsTimeRowLayerAndStep) {
  const auto spans = Write(CoordinatorSteps(1, 2), {{"a \"card\"", RankSteps(1, 2), true}}, 0);
  EXPECT_EQ(name_, "rank 0: a \"card\"");
  ASSERT_EQ(spans.size(), 6u);
  EXPECT_EQ(spans[4], nlohmann::json({{"ph", "X"},
                                      {"name", "gate"},
                                      {"pid", 0},
                                      {"tid", 1},
                                      {"ts", 210.0},
                                      {"dur", 30.5},
                                      {"args", {{"step", 2}, {"layer", 4}}}}));
  EXPECT_EQ(spans[3]["tid"], 0);
  EXPECT_FALSE(spans[3]["args"].contains("layer"));
  EXPECT_EQ(spans[5]["tid"], 2);
}

TEST_F(TraceFile, StepsOfAnotherHostBeginWhenTheCoordinatorPostsThem) {
  const auto spans = Write(CoordinatorSteps(3, 9), {{"far", RankSteps(1, 9), true}}, 0);
  ASSERT_EQ(spans.size(), 7u * 3);  // without those that the coordinator does not know any more
  for (size_t i = 0; i < spans.size(); i += 3) {
    EXPECT_EQ(spans[i]["args"]["step"], 3 + i / 3);
    EXPECT_EQ(spans[i]["ts"], 10.0 + 200.0 * static_cast<double>(i / 3));
    EXPECT_EQ(spans[i + 2]["ts"], spans[i]["ts"].get<double>() + 30.5);
  }
}

TEST_F(TraceFile, SpansOfThisHostStayWhereTheyAre) {
  const auto spans = Write({}, {{"near", RankSteps(1, 9), false}}, 0);
  ASSERT_EQ(spans.size(), 9u * 3);
  EXPECT_EQ(spans[0]["ts"], 0.0);
  EXPECT_EQ(spans[3]["ts"], 190.0);
}

TEST_F(TraceFile, WithoutAStepItIsATraceAllTheSame) {
  EXPECT_TRUE(Write({}, {{"idle", {}, false}, {"far", {}, true}}, 1).empty());
  EXPECT_EQ(name_, "rank 1: far");
}

TEST_F(TraceFile, APathIsTriedWithoutATraceOfIt) {
  EXPECT_TRUE(CheckTracePath(path_).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_THAT(std::string(CheckTracePath("/no/such/t.json").message()),
              HasSubstr("/no/such/t.json: cannot be written"));
  EXPECT_THAT(std::string(CheckTracePath("/tmp").message()), HasSubstr("is a folder"));
}

}  // namespace
}  // namespace thermocline
