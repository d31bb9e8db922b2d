// Sums over ranks and layers.
#include "coordinator/engine/fleet_totals.h"

#include <algorithm>
#include <numeric>

#include "fmt/format.h"

namespace thermocline {

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

}  // namespace thermocline
