// Asks libnuma and the scheduler; keeps nothing.
#include "common/util/topology.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fmt/format.h"

namespace thermocline {
namespace {

// CPUs of the scheduler's affinity mask, for machines of any size.
std::vector<int32_t> AllowedCpus() {
  for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(n_cpus);
    const size_t n_bytes = CPU_ALLOC_SIZE(n_cpus);
    std::vector<int32_t> cpus;
    const bool ok = sched_getaffinity(0, n_bytes, set) == 0;
    for (int cpu = 0; ok && cpu < n_cpus; ++cpu) {
      if (CPU_ISSET_S(cpu, n_bytes, set)) cpus.push_back(cpu);
    }
    const bool too_small = !ok && errno == EINVAL;
    CPU_FREE(set);
    if (!too_small) return cpus;
  }
  return {};
}

}  // namespace

std::vector<NumaNode> UsableNodes() {
  const std::vector<int32_t> allowed = AllowedCpus();
  std::vector<NumaNode> nodes;
  if (numa_available() >= 0) {
    bitmask* memories = numa_get_mems_allowed();
    int32_t first = 0;
    while (first < numa_max_node() && !numa_bitmask_isbitset(memories, first)) ++first;
    for (const int32_t cpu : allowed) {
      const int32_t own = std::max(0, numa_node_of_cpu(cpu));
      const int32_t id = numa_bitmask_isbitset(memories, own) ? own : first;
      auto node = std::find_if(nodes.begin(), nodes.end(),
                               [id](const NumaNode& candidate) { return candidate.id == id; });
      if (node == nodes.end()) node = nodes.insert(nodes.end(), NumaNode{id, {}});
      node->cpus.push_back(cpu);
    }
    numa_free_nodemask(memories);
  }
  if (nodes.empty()) nodes.push_back({0, allowed.empty() ? std::vector<int32_t>{0} : allowed});
  std::sort(nodes.begin(), nodes.end(),
            [](const NumaNode& a, const NumaNode& b) { return a.id < b.id; });
  return nodes;
}

absl::Status BindThreadToNode(int32_t node_id) {
  const std::vector<NumaNode> nodes = UsableNodes();
  const auto node = std::find_if(nodes.begin(), nodes.end(), [&](const NumaNode& candidate) {
    return candidate.id == node_id;
  });
  if (node == nodes.end()) {
    return absl::InvalidArgumentError(
        fmt::format("NUMA node {} has no CPU that this process may use", node_id));
  }
  if (nodes.size() == 1) return absl::OkStatus();  // there is nowhere else to be

  const int n_cpus = *std::max_element(node->cpus.begin(), node->cpus.end()) + 1;
  cpu_set_t* set = CPU_ALLOC(n_cpus);
  const size_t n_bytes = CPU_ALLOC_SIZE(n_cpus);
  CPU_ZERO_S(n_bytes, set);
  for (const int32_t cpu : node->cpus) CPU_SET_S(cpu, n_bytes, set);
  const int failed = sched_setaffinity(0, n_bytes, set);
  CPU_FREE(set);
  if (failed != 0) {
    return absl::InternalError(
        fmt::format("can't bind to the CPUs of NUMA node {}: {}", node_id, std::strerror(errno)));
  }
  int policy = MPOL_DEFAULT;
  if (get_mempolicy(&policy, nullptr, 0, nullptr, 0) != 0 || policy != MPOL_DEFAULT) {
    return absl::OkStatus();  // inherited, or not to be known in this sandbox
  }
  nodemask_t mask;
  nodemask_zero(&mask);
  nodemask_set_compat(&mask, node_id);
  if (set_mempolicy(MPOL_BIND, mask.n, NUMA_NUM_NODES) != 0) {
    return absl::InternalError(
        fmt::format("can't bind memory to NUMA node {}: {}", node_id, std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
