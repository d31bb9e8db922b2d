// Where the memory of a large model is: its weights once in all workers together, none in the
// coordinator (this process). Needs a file of a gigabyte or so, named by THERMOCLINE_LARGE_MODEL.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "coordinator/engine/fleet.h"
#include "fmt/format.h"
#include "tests/testing/expected_model.h"

namespace thermocline {
namespace {

// Proportional set size of a process, in bytes: of all of it, and of the mappings that lie in one
// of the address ranges.
struct Memory {
  int64_t total = 0;
  int64_t in_ranges = 0;
};

Memory MemoryOf(int pid, const worker::v1::StatsResponse* stats) {
  std::ifstream smaps(fmt::format("/proc/{}/smaps", pid));
  Memory memory;
  bool is_inside = false;
  for (std::string line; std::getline(smaps, line);) {
    uint64_t begin, end;
    int64_t kib;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      is_inside = false;
      for (int i = 0; stats != nullptr && i < stats->weight_ranges_size(); ++i) {
        const auto& range = stats->weight_ranges(i);
        is_inside = is_inside || (begin < range.end() && range.begin() < end);
      }
    } else if (std::sscanf(line.c_str(), "Pss: %ld kB", &kib) == 1) {
      memory.total += kib * 1024;
      if (is_inside) memory.in_ranges += kib * 1024;
    }
  }
  return memory;
}

class LargeModel : public ::testing::TestWithParam<int64_t> {};

TEST_P(LargeModel, WeightsAreInAllWorkersTogetherOnceAndNotInTheCoordinator) {
  const char* path = std::getenv("THERMOCLINE_LARGE_MODEL");
  if (path == nullptr && !testing::RequiresModels()) {
    GTEST_SKIP() << "THERMOCLINE_LARGE_MODEL names no file";
  }
  ASSERT_NE(path, nullptr) << "THERMOCLINE_LARGE_MODEL names no file";
  FleetOptions options;
  options.model_path = path;
  options.worker_binary = THERMOCLINE_BIN_DIR "/cpu_worker";
  options.n_workers = GetParam();
  options.n_threads = GetParam();
  options.n_ctx = 512;
  const auto fleet = Fleet::Start(options, nullptr, nullptr);
  ASSERT_TRUE(fleet.ok()) << fleet.status();
  ASSERT_TRUE((*fleet)->Run({{{1, 0, 0, true}}}).ok());  // after a token all of it has been touched
  const auto stats = (*fleet)->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  int64_t weights = 0;
  for (const worker::v1::StatsResponse& worker : *stats) {
    const Memory memory = MemoryOf(worker.pid(), &worker);
    std::printf("  worker %d: weights %.1f MiB, in all %.1f MiB\n", worker.rank(),
                memory.in_ranges / 1048576.0, memory.total / 1048576.0);
    EXPECT_GE(memory.in_ranges, worker.weight_bytes() * 99 / 100);  // they are really there
    weights += memory.in_ranges;
  }
  const auto file_bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  const Memory coordinator = MemoryOf(getpid(), nullptr);
  std::printf("  weights of all workers / file: %.4f; coordinator %.1f MiB\n",
              static_cast<double>(weights) / static_cast<double>(file_bytes),
              coordinator.total / 1048576.0);
  EXPECT_LE(static_cast<double>(weights), 1.05 * static_cast<double>(file_bytes));
  EXPECT_LT(coordinator.total, int64_t{200} << 20);
}

INSTANTIATE_TEST_SUITE_P(Workers, LargeModel, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace thermocline
