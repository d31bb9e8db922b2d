#include "solver/placement/hardware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

using ::testing::HasSubstr;
constexpr double kGib = 1024.0 * 1024 * 1024;

TEST(ParseHardware, ReadsKnownGpusDescribedOnesAndNodes) {
  const absl::StatusOr<Hardware> hardware = ParseHardware(
      "rtx4090 + gpu(12GiB,500GB/s,link=25GB/s,handover=9us)+2x(64GiB, 100GB/s,threads=8)");
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  ASSERT_EQ(hardware->ranks.size(), 4u);
  EXPECT_TRUE(hardware->has_gpu());
  const HardwareRank& known = hardware->ranks[0];
  EXPECT_EQ(known.kind, RankKind::kGpu);
  EXPECT_EQ(known.name, "rtx4090");
  EXPECT_EQ(known.memory_bytes, 24 * kGib);
  EXPECT_EQ(known.gbps, 1008);
  const HardwareRank& described = hardware->ranks[1];
  EXPECT_EQ(described.kind, RankKind::kGpu);
  EXPECT_EQ(described.memory_bytes, 12 * kGib);
  EXPECT_EQ(described.gbps, 500);
  EXPECT_EQ(described.link_gbps, 25);
  EXPECT_EQ(described.handover_us, 9);
  EXPECT_EQ(hardware->ranks[2].kind, RankKind::kCpu);
  EXPECT_EQ(hardware->ranks[2].gbps, 100);
  EXPECT_EQ(hardware->ranks[2].n_threads, 8);
  EXPECT_EQ(hardware->ranks[2], hardware->ranks[3]);
  EXPECT_EQ(hardware->ranks[2].gmacs, 0);  // not known
  const auto prompts = ParseHardware("(64GiB,100GB/s,macs=2000GMAC/s,pack=16GB/s)");
  ASSERT_TRUE(prompts.ok()) << prompts.status();
  EXPECT_EQ(prompts->ranks[0].gmacs, 2000);
  EXPECT_EQ(prompts->ranks[0].pack_gbps, 16);
}

TEST(ParseHardware, KnowsTheGpusOfTheGuideAndThePapers) {
  for (const std::string name :
       {"rtx2080ti", "rtx3090", "rtx4090", "a100-40g", "a100-80g", "h100", "RTX4090", "2xH100"}) {
    EXPECT_TRUE(ParseHardware(name).ok()) << name;
  }
  EXPECT_EQ(ParseHardware("2xh100")->ranks.size(), 2u);
  EXPECT_FALSE(ParseHardware("(64GiB,100GB/s)")->has_gpu());
}

TEST(ParseHardware, ErrorsNameThePartAndTheGrammar) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty part"},
      {"rtx4090+", "empty part"},
      {"rtx9090+(64GiB,100GB/s)", "rtx9090"},
      {"rtx4090+(64GB,100GB/s)", "'64gb' where <number>GiB"},
      {"rtx4090+(64GiB)", "where <number>GB/s"},
      {"rtx4090+(64GiB,100GiB/s)", "100gib/s"},
      {"rtx4090+(64GiB,100GB/s", "lacks its ')'"},
      {"rtx4090+0x(64GiB,100GB/s)", "1 to 64 times"},
      {"99999999999999999999x(64GiB,100GB/s)", "1 to 64 times"},
      {"(64GiB,-100GB/s)", "-100gb/s"},
      {"(64GiB,nanGB/s)", "nangb/s"},
      {"(64GiB,100GB/s,link=3GB/s)", "threads=<number>"},
      {"(64GiB,100GB/s,threads=1.5)", "threads=1.5"},
      {"(64GiB,100GB/s,macs=2000)", "macs=<number>GMAC/s"},
      {"gpu(24GiB,1008GB/s,links=25GB/s)", "links=25gb/s"},
      {"cpu(24GiB,1008GB/s)", "nor gpu(...)"},
      {"x", "nor gpu(...)"},
      {"12", "nor gpu(...)"},
  };
  for (const auto& [text, expected] : cases) {
    const absl::Status status = ParseHardware(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rtx4090+2x(64GiB,100GB/s)")) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("a100-80g")) << text;
  }
}

TEST(MeasureHardware, FindsThisMachinesNodesThreadsAndBandwidth) {
  const absl::StatusOr<Hardware> hardware = MeasureHardware(0);
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  ASSERT_GE(hardware->ranks.size(), 1u);
  for (const HardwareRank& rank : hardware->ranks) {
    EXPECT_EQ(rank.kind, RankKind::kCpu);
    EXPECT_GE(rank.n_threads, 1);
    EXPECT_GT(rank.memory_bytes, 1e6);
    EXPECT_GT(rank.gbps, 0.01);
    EXPECT_GT(rank.gmacs, 0.01);
    EXPECT_GT(rank.pack_gbps, 0.001);
  }
}

}  // namespace
}  // namespace thermocline
