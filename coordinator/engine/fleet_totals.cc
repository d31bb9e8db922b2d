// Sums over ranks and layers.
#include "coordinator/engine/fleet_totals.h"

#include <algorithm>
#include <numeric>

#include "fmt/format.h"

namespace thermocline {
namespace {

// What a rank computes with, for people.
std::string WhatOf(const worker::v1::StatsResponse& rank) {
  if (rank.device().empty()) {
    return fmt::format("{} thread{}, {}", rank.n_threads(), rank.n_threads() == 1 ? "" : "s",
                       rank.isa());
  }
  if (rank.step_form().empty()) return rank.device();
  return fmt::format("{}; a step of one token is {}", rank.device(), rank.step_form());
}

}  // namespace

double FleetTotals::TokenBytes() const {
  const double left_out =
      tokens == 0 ? 0.0 : static_cast<double>(bytes) / static_cast<double>(tokens);
  return static_cast<double>(step_bytes) + left_out;
}

double FleetTotals::TimeShare(int part) const {
  const double all = std::accumulate(part_ns.begin(), part_ns.end(), 0.0);
  return all > 0 ? part_ns[part] / all : 0.0;
}

std::string FleetTotals::Describe() const {
  if (!leaves_out()) return "";
  std::string text = fmt::format(
      "{:.1f} % of neurons computed, {:.1f} % fired; choosing took {:.1f} % of the time",
      100 * ComputedShare(), 100 * FiredShare(), 100 * TimeShare(1));
  if (gpu_neurons > 0 && gpu_neurons < neurons) {
    text += fmt::format("; the {:.1f} % of neurons that are hot had {:.1f} % of the firings",
                        100 * HotShare(), 100 * HotHitRate());
  }
  if (mass > 0) {
    text += fmt::format("; recall {:.2f} % of firings, {:.2f} % of activation mass", 100 * Recall(),
                        100 * MassRecall());
  }
  return text;
}

FleetTotals FleetTotals::Since(const FleetTotals& before) const {
  FleetTotals d = *this;
  d.steps -= before.steps;
  d.tokens -= before.tokens;
  d.neurons -= before.neurons;
  d.computed -= before.computed;
  d.fired -= before.fired;
  d.gpu_neurons -= before.gpu_neurons;
  d.gpu_fired -= before.gpu_fired;
  d.bytes -= before.bytes;
  d.missed -= before.missed;
  d.mass -= before.mass;
  d.missed_mass -= before.missed_mass;
  for (int i = 0; i < kParts; ++i) d.part_ns[i] -= before.part_ns[i];
  return d;
}

FleetTotals TotalsOf(const std::vector<worker::v1::StatsResponse>& ranks) {
  FleetTotals totals;
  double slowest_work = -1;
  for (const worker::v1::StatsResponse& rank : ranks) {
    totals.steps = std::max(totals.steps, rank.steps());
    totals.step_bytes += rank.token_bytes();
    for (const worker::v1::FfnCounts& layer : rank.ffn()) {
      totals.tokens = std::max(totals.tokens, layer.tokens());
      totals.neurons += layer.neurons();
      totals.computed += layer.computed();
      totals.fired += layer.fired();
      if (!rank.device().empty()) {
        totals.gpu_neurons += layer.neurons();
        totals.gpu_fired += layer.fired();
      }
      totals.bytes += layer.bytes();
      totals.missed += layer.missed();
      totals.mass += layer.mass();
      totals.missed_mass += layer.missed_mass();
    }
    const worker::v1::StepTimes& t = rank.times();
    const std::array<double, FleetTotals::kParts> parts = {
        double(t.attention_ns()), double(t.choose_ns()), double(t.gate_ns()),
        double(t.up_ns()),        double(t.down_ns()),   double(t.exchange_ns()),
        double(t.output_ns()),    double(t.other_ns())};
    const double work = std::accumulate(parts.begin(), parts.end(), -double(t.exchange_ns()));
    if (work > slowest_work) {
      slowest_work = work;
      totals.part_ns = parts;
    }
  }
  return totals;
}

v1::StatsResponse StatsForClients(const std::vector<worker::v1::StatsResponse>& ranks) {
  const FleetTotals totals = TotalsOf(ranks);
  v1::StatsResponse response;
  response.set_computed_share(totals.ComputedShare());
  response.set_fired_share(totals.FiredShare());
  response.set_hot_share(totals.HotShare());
  response.set_hot_hit_rate(totals.HotHitRate());
  for (const worker::v1::StatsResponse& rank : ranks) {
    const worker::v1::StepTimes& t = rank.times();
    const bool is_gpu = !rank.device().empty();
    const int64_t all_ns = is_gpu
                               ? t.step_ns()
                               : t.attention_ns() + t.choose_ns() + t.gate_ns() + t.up_ns() +
                                     t.down_ns() + t.exchange_ns() + t.output_ns() + t.other_ns();
    const auto us_a_step = [&](int64_t ns) {
      return static_cast<double>(ns) /
             (std::max<double>(static_cast<double>(rank.steps()), 1) * 1e3);
    };
    uint64_t fired = 0;
    for (const worker::v1::FfnCounts& layer : rank.ffn()) fired += layer.fired();
    v1::RankStats* stats = response.add_ranks();
    stats->set_rank(rank.rank());
    stats->set_what(WhatOf(rank));
    stats->set_is_gpu(is_gpu);
    stats->set_carrier(rank.carrier());
    stats->set_weight_bytes(rank.weight_bytes());
    stats->set_kv_bytes(rank.kv_bytes());
    stats->set_buffer_bytes(rank.buffer_bytes());
    stats->set_graph_bytes(rank.graph_bytes());
    stats->set_steps(rank.steps());
    stats->set_step_us(us_a_step(all_ns));
    stats->set_wait_us(us_a_step(t.exchange_ns()));
    stats->set_firings_share(FleetTotals::Share(fired, totals.fired));
  }
  return response;
}

std::string RankTable(const v1::StatsResponse& stats) {
  const auto mib = [](int64_t n_bytes) { return static_cast<double>(n_bytes) / (1024.0 * 1024); };
  const bool has_firings = stats.fired_share() > 0;
  std::string table =
      "rank  weights MiB  KV cache MiB  buffers MiB  graphs MiB  us a step  of them waiting  "
      "firings\n";
  for (const v1::RankStats& rank : stats.ranks()) {
    const std::string buffers = fmt::format("{:.1f}", mib(rank.buffer_bytes()));
    const std::string graphs = fmt::format("{:.1f}", mib(rank.graph_bytes()));
    const std::string wait_us = fmt::format("{:.0f}", rank.wait_us());
    const std::string firings = fmt::format("{:.1f} %", 100 * rank.firings_share());
    table +=
        fmt::format("{:4}  {:11.1f}  {:12.1f}  {:>11}  {:>10}  {:9.0f}  {:>15}  {:>7}  {}\n",
                    rank.rank(), mib(rank.weight_bytes()), mib(rank.kv_bytes()),
                    rank.is_gpu() ? buffers : "-", rank.is_gpu() ? graphs : "-", rank.step_us(),
                    rank.is_gpu() ? "-" : wait_us, has_firings ? firings : "-", rank.what());
  }
  if (stats.hot_share() > 0 && stats.hot_share() < 1) {
    table += fmt::format("hot neurons: {:.1f} % of all, with {:.1f} % of the firings\n",
                         100 * stats.hot_share(), 100 * stats.hot_hit_rate());
  }
  return table;
}

}  // namespace thermocline
