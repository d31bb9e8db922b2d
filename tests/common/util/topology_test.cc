#include "common/util/topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace thermocline {
namespace {

std::vector<int32_t> CpusOf(const std::vector<NumaNode>& nodes) {
  std::vector<int32_t> cpus;
  for (const NumaNode& node : nodes) cpus.insert(cpus.end(), node.cpus.begin(), node.cpus.end());
  return cpus;
}

TEST(Topology, EveryUsableCpuIsOfOneNode) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  const std::vector<int32_t> cpus = CpusOf(UsableNodes());
  EXPECT_EQ(static_cast<int>(cpus.size()), CPU_COUNT(&allowed));
  for (const int32_t cpu : cpus) EXPECT_TRUE(CPU_ISSET(cpu, &allowed)) << cpu;
}

TEST(Topology, AnInheritedCpusetIsHonoured) {
  const int32_t cpu = CpusOf(UsableNodes()).back();
  std::thread([cpu] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    const std::vector<NumaNode> nodes = UsableNodes();
    ASSERT_EQ(nodes.size(), 1u);
    EXPECT_EQ(nodes[0].cpus, std::vector<int32_t>{cpu});
    EXPECT_TRUE(BindThreadToNode(nodes[0].id).ok());
    cpu_set_t now;
    ASSERT_EQ(sched_getaffinity(0, sizeof(now), &now), 0);
    EXPECT_TRUE(CPU_EQUAL(&one, &now));
  }).join();
}

TEST(Topology, ANodeWithoutUsableCpusIsRefused) {
  const absl::Status status = BindThreadToNode(12345);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(std::string(status.message()).find("12345"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
