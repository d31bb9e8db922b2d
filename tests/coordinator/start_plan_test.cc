// Ranks of a host, from its nodes and their memory.
#include "coordinator/engine/start_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/util/memory.h"

namespace thermocline {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;
const std::vector<NumaNode> kTwo = {{0, {0, 1, 2, 3, 4, 5}}, {1, {6, 7}}};

TEST(LocalHardware, OneWorkerANodeWithItsThreadsAndMemory) {
  const auto hardware = LocalHardware({}, kTwo, {64 * kGib, 8 * kGib});
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  ASSERT_EQ(hardware->ranks.size(), 2u);
  EXPECT_EQ(hardware->ranks[0].node, 0);
  EXPECT_EQ(hardware->ranks[0].n_threads, 6);
  EXPECT_EQ(hardware->ranks[1].node, 1);
  EXPECT_EQ(hardware->ranks[1].n_threads, 2);
  EXPECT_NEAR(hardware->ranks[0].gbps / hardware->ranks[1].gbps, 3, 1e-9);
  EXPECT_NEAR(hardware->ranks[0].memory_bytes / hardware->ranks[1].memory_bytes, 8, 1e-9);
  EXPECT_LT(hardware->ranks[1].memory_bytes, 8.0 * kGib);
}

TEST(LocalHardware, WorkersOfANodeShareItsMemoryByTheirThreads) {
  StartPlanOptions options;
  options.n_workers = 4;
  options.n_threads = 6;
  const auto hardware = LocalHardware(options, kTwo, {60 * kGib, 20 * kGib});
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  int64_t n_threads = 0;
  double on_first = 0;
  for (size_t i = 0; i < 4; ++i) {
    const HardwareRank& rank = hardware->ranks[i];
    EXPECT_EQ(rank.node, i % 2);
    EXPECT_GE(rank.n_threads, 1);
    n_threads += rank.n_threads;
    if (i % 2 == 0) on_first += rank.memory_bytes;
  }
  EXPECT_EQ(n_threads, 6);
  EXPECT_GT(on_first, 50.0 * kGib);
  EXPECT_LE(on_first, 60.0 * kGib);
}

TEST(LocalHardware, GpusComeFirstAndHaveACpuEach) {
  StartPlanOptions options;
  options.gpus = {{"cuda:0", "a card", 8 * kGib, 8 * kGib, 500}, {"cuda:1", "", kGib, kGib, 400}};
  options.cpu_thread_gbps = 10;
  const auto hardware = LocalHardware(options, kTwo, {64 * kGib, 8 * kGib});
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  ASSERT_EQ(hardware->ranks.size(), 4u);
  EXPECT_EQ(hardware->ranks[0].kind, RankKind::kGpu);
  EXPECT_EQ(hardware->ranks[1].gbps, 400);
  EXPECT_LT(hardware->ranks[0].memory_bytes, 8.0 * kGib);
  EXPECT_GT(hardware->ranks[0].memory_bytes, 7.0 * kGib);
  EXPECT_EQ(hardware->ranks[2].n_threads + hardware->ranks[3].n_threads, 8 - 2);
  EXPECT_EQ(hardware->ranks[2].gbps, 10.0 * hardware->ranks[2].n_threads);
  options.n_threads = 8;
  const auto all = LocalHardware(options, kTwo, {64 * kGib, 8 * kGib});
  EXPECT_EQ(all->ranks[2].n_threads + all->ranks[3].n_threads, 8) << "as asked for";
}

TEST(LocalHardware, AnOnlyNodeIsBoundToNothing) {
  const auto hardware = LocalHardware({}, {{3, {0}}}, {kGib});
  ASSERT_TRUE(hardware.ok()) << hardware.status();
  EXPECT_EQ(hardware->ranks[0].node, -1);
}

TEST(LocalHardware, EachWorkerNeedsAThread) {
  StartPlanOptions options;
  options.n_workers = 3;
  options.n_threads = 2;
  EXPECT_THAT(std::string(LocalHardware(options, kTwo, {kGib, kGib}).status().message()),
              ::testing::HasSubstr("2 threads for 3 workers"));
}

TEST(PlanForStart, LongPromptsStreamToACardAndNotToTheEmulatedOne) {
  const auto model =
      ModelHeader::Open(THERMOCLINE_SOURCE_DIR "/tests/models/reluctant-13m-q8_0.gguf", "");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto setup = OpenSparseSetup({}, **model);
  ASSERT_TRUE(setup.ok()) << setup.status();
  StartPlanOptions options;
  options.n_threads = options.n_workers = 1;
  options.n_kv_tokens = 64;
  options.batch_size = 4096;  // packing is slow under sanitizers
  options.n_gpu_layers = 2;
  const auto stream_tokens = [&](const std::string& device) {
    options.gpus = {{device, "", 8 * kGib, 8 * kGib, 500}};
    const auto plan = PlanForStart(options, {}, **model, *setup);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? plan->stream_tokens : -1;
  };
  EXPECT_EQ(stream_tokens("emulated"), 0);
  EXPECT_GE(stream_tokens("cuda:0"), kMinStreamTokens);
  options.batch_size = kMinStreamTokens - 1;
  EXPECT_EQ(stream_tokens("cuda:0"), 0);
}

TEST(AvailableBytesOfNodes, StayWithinWhatThisProcessMayTake) {
  const int64_t all = AvailableMemoryBytes();
  EXPECT_GT(all, 0);
  const std::vector<NumaNode> twice = {{0, {0}}, {0, {0}}};
  const std::vector<int64_t> bytes = AvailableBytesOfNodes(twice);
  ASSERT_EQ(bytes.size(), 2u);
  EXPECT_GT(bytes[0], 0);
  // Other processes move it meanwhile.
  EXPECT_LE(static_cast<double>(bytes[0] + bytes[1]), 1.1 * static_cast<double>(all));
}

}  // namespace
}  // namespace thermocline
