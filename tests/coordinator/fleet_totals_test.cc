// What ranks say of themselves, added up and as a table.
#include "coordinator/engine/fleet_totals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline {
namespace {

using ::testing::HasSubstr;

worker::v1::StatsResponse Rank(int32_t rank, uint64_t neurons, uint64_t fired) {
  worker::v1::StatsResponse stats;
  stats.set_rank(rank);
  stats.set_steps(10);
  stats.set_weight_bytes((rank + 1) << 20);
  stats.set_n_threads(4);
  stats.set_isa("avx2");
  worker::v1::FfnCounts* layer = stats.add_ffn();
  layer->set_tokens(10);
  layer->set_neurons(neurons);
  layer->set_computed(neurons);
  layer->set_fired(fired);
  return stats;
}

TEST(FleetTotals, TheHitRateIsTheGpusShareOfTheFirings) {
  worker::v1::StatsResponse gpu = Rank(0, 100, 60);
  gpu.set_device("cuda:0 (a card)");
  gpu.set_graph_bytes(77 << 20);
  gpu.mutable_times()->set_step_ns(10 * 2500);
  worker::v1::StatsResponse cpu = Rank(1, 300, 20);
  cpu.mutable_times()->set_gate_ns(10 * 1000);
  cpu.mutable_times()->set_exchange_ns(10 * 500 * 1000);
  const FleetTotals totals = TotalsOf({gpu, cpu});
  EXPECT_DOUBLE_EQ(totals.HotShare(), 0.25);
  EXPECT_DOUBLE_EQ(totals.HotHitRate(), 0.75);
  EXPECT_THAT(totals.Describe(), HasSubstr("25.0 % of neurons that are hot had 75.0 %"));
  EXPECT_DOUBLE_EQ(totals.Since(totals).HotHitRate(), 0);
  const std::string table = RankTable(StatsForClients({gpu, cpu}));
  EXPECT_THAT(table, HasSubstr("77.0"));  // MiB of graphs
  EXPECT_THAT(table, HasSubstr("75.0 %  cuda:0 (a card)\n"));
  EXPECT_THAT(table, HasSubstr("25.0 %  4 threads, avx2\n"));
  EXPECT_THAT(table, HasSubstr("hot neurons: 25.0 % of all, with 75.0 % of the firings\n"));
  EXPECT_THAT(table, HasSubstr("501"));  // us a step of the CPU rank, 500 of them waiting
}

TEST(FleetTotals, WithoutAGpuNothingIsHot) {
  EXPECT_EQ(TotalsOf({Rank(0, 100, 60)}).Describe().find("hot"), std::string::npos);
  worker::v1::StatsResponse all = Rank(0, 100, 60);
  all.set_device("emulated");
  EXPECT_EQ(TotalsOf({all}).Describe().find("hot"), std::string::npos) << "nothing is cold";
}

}  // namespace
}  // namespace thermocline
