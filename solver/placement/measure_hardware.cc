// This machine as the planner's Hardware: NUMA nodes, free memory, bandwidth of plain reads, rates
// of prompts.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>

#include "common/util/memory.h"
#include "common/util/status_macros.h"
#include "common/util/topology.h"
#include "fmt/format.h"
#include "solver/placement/hardware.h"
#include "solver/placement/measure_prompts.h"

namespace thermocline {
namespace {

constexpr size_t kWords = size_t{16} << 20;  // of 8 bytes, a thread: beyond its share of any cache
constexpr int kRepeats = 3;                  // the best counts: what the memory can give

// Of a thread, while others measure, too.
struct Rates {
  double gbps = 0;  // read
  PromptRates prompts;
};

double ReadGbps() {
  const std::vector<uint64_t> words(kWords, 1);
  double best = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    volatile uint64_t sum = std::accumulate(words.begin(), words.end(), uint64_t{0});
    (void)sum;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(kWords * sizeof(uint64_t)) / took.count() / 1e9);
  }
  return best;
}

Rates RatesOn(int32_t node) {
  if (!BindThreadToNode(node).ok()) return {};  // a node without CPUs of ours reads nothing
  Rates rates;
  rates.gbps = ReadGbps();
  rates.prompts = MeasurePromptRates();
  return rates;
}

}  // namespace

absl::StatusOr<Hardware> MeasureHardware(int64_t n_threads) {
  const std::vector<NumaNode> nodes = UsableNodes();
  int64_t n_cpus = 0;
  for (const NumaNode& node : nodes) n_cpus += static_cast<int64_t>(node.cpus.size());
  if (n_threads == 0) n_threads = n_cpus;
  if (n_threads < static_cast<int64_t>(nodes.size())) {
    return absl::InvalidArgumentError(
        fmt::format("{} threads for {} NUMA nodes: each needs one (--threads is the total)",
                    n_threads, nodes.size()));
  }
  Hardware hardware;
  const std::vector<int64_t> node_bytes = AvailableBytesOfNodes(nodes);
  std::vector<std::thread> threads;
  std::vector<Rates> rates(n_threads);
  int64_t given = 0, cpus_seen = 0;
  for (const NumaNode& node : nodes) {
    HardwareRank rank;
    rank.name = "cpu";
    rank.node = nodes.size() > 1 ? node.id : -1;
    rank.memory_bytes = static_cast<double>(node_bytes[hardware.ranks.size()]);
    cpus_seen += static_cast<int64_t>(node.cpus.size());
    const int64_t nodes_left = static_cast<int64_t>(nodes.size() - hardware.ranks.size()) - 1;
    const int64_t end =
        std::clamp(n_threads * cpus_seen / n_cpus, given + 1, n_threads - nodes_left);
    rank.n_threads = static_cast<int32_t>(end - given);
    for (; given < end; ++given) {
      threads.emplace_back([&rates, given, id = node.id] { rates[given] = RatesOn(id); });
    }
    hardware.ranks.push_back(rank);
  }
  for (std::thread& thread : threads) thread.join();
  auto next = rates.begin();
  for (HardwareRank& rank : hardware.ranks) {
    for (const auto end = next + rank.n_threads; next != end; ++next) {
      rank.gbps += next->gbps;
      rank.gmacs += next->prompts.gmacs;
      rank.pack_gbps += next->prompts.pack_gbps;
    }
    if (rank.gbps <= 0) return absl::UnavailableError("can't measure what memory reads reach");
  }
  return hardware;
}

}  // namespace thermocline
