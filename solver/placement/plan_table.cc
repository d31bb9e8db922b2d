// The table and the totals of a plan.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/str_join.h"
#include "solver/placement/plan_report.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024, kMib = 1024.0 * 1024;

int64_t Count(const std::vector<Range>& ranges) {
  int64_t n = 0;
  for (const Range& range : ranges) n += range.size();
  return n;
}

// One cell: a value for each rank.
template <typename Function>
std::string PerRank(int32_t n_ranks, Function text) {
  std::vector<std::string> parts;
  for (int32_t r = 0; r < n_ranks; ++r) parts.push_back(text(r));
  return absl::StrJoin(parts, " / ");
}

std::string ModeText(const LayerMode& mode) {
  if (mode.mode != Sparsity::kSketch) return SparsityName(mode.mode);
  return fmt::format("sketch {}", mode.sketch_bits);
}

std::vector<std::string> Row(const ModelShape& shape, const PlannedFleet& fleet, size_t first,
                             size_t end) {
  const LayerPlan& layer = fleet.plan.layers[first];
  const int32_t n_ranks = fleet.plan.n_ranks();
  const LayerShape& bytes = shape.layers[first];
  return {
      end - first == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, end - 1),
      ModeText(fleet.modes[first]),
      PerRank(n_ranks, [&](int32_t r) { return fmt::format("{}", layer.kv_heads[r].size()); }),
      PerRank(n_ranks, [&](int32_t r) { return fmt::format("{}", Count(layer.neurons[r])); }),
      PerRank(n_ranks,
              [&](int32_t r) {
                return fmt::format("{:.0f}", 100 * ActivationsCovered(fleet.firing.tables[first],
                                                                      layer.neurons[r]));
              }),
      PerRank(n_ranks,
              [&](int32_t r) {
                const double heads = static_cast<double>(layer.kv_heads[r].size()) /
                                     static_cast<double>(shape.config.n_kv_heads);
                return fmt::format("{:.0f}", (heads * bytes.attention_bytes +
                                              static_cast<double>(Count(layer.neurons[r])) *
                                                  bytes.neuron_bytes()) /
                                                 kMib);
              }),
      PerRank(n_ranks, [&](int32_t r) { return fmt::format("{:.0f}", layer.predicted_us[r]); }),
  };
}

std::string Aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += fmt::format("{:<{}}{}", row[i], i + 1 < row.size() ? widths[i] : row[i].size(),
                          i + 1 < row.size() ? "  " : "\n");
    }
  }
  return text;
}

std::string MemoryTable(const Hardware& hardware, const PlannedFleet& fleet) {
  std::vector<std::vector<std::string>> rows = {{"rank", "what", "GiB", "of", "attention",
                                                 "KV cache", "neurons", "predictor", "output",
                                                 "workspace"}};
  const auto gib = [](double bytes) { return fmt::format("{:.2f}", bytes / kGib); };
  for (size_t r = 0; r < fleet.ranks.size(); ++r) {
    const PlannedRank& rank = fleet.ranks[r];
    rows.push_back({fmt::format("{}", r), hardware.ranks[r].name, gib(rank.total_bytes()),
                    gib(rank.limit_bytes), gib(rank.attention_bytes), gib(rank.kv_bytes),
                    gib(rank.neuron_bytes), gib(rank.predictor_bytes), gib(rank.output_bytes),
                    gib(rank.workspace_bytes)});
  }
  return Aligned(rows);
}

}  // namespace

double ActivationsCovered(const FiringTable& firing, const std::vector<Range>& neurons) {
  double covered = 0;
  for (const Range& range : neurons) {
    covered +=
        std::accumulate(firing.fires.begin() + range.begin, firing.fires.begin() + range.end, 0.0);
  }
  return covered / std::max(firing.total(), 1e-12);
}

std::string PlanTable(const ModelShape& shape, const Hardware& hardware,
                      const PlannedFleet& fleet) {
  std::vector<std::vector<std::string>> rows = {
      {"layers", "mode", "KV heads", "neurons", "% of activations", "MiB", "us"}};
  const std::vector<LayerPlan>& layers = fleet.plan.layers;
  for (size_t first = 0; first < layers.size();) {
    size_t end = first + 1;
    while (end < layers.size() && layers[end] == layers[first] &&
           shape.layers[end] == shape.layers[first]) {
      ++end;
    }
    rows.push_back(Row(shape, fleet, first, end));
    first = end;
  }
  const double step_us = fleet.plan.predicted_us;
  std::string notes;
  if (fleet.plan.gpu_ctx > 0) {
    notes = fmt::format(
        "Of a session's context GPUs hold K and V of the first {} tokens, CPUs those of the "
        "others.\n",
        fleet.plan.gpu_ctx);
  }
  for (int32_t r = 0; r < fleet.plan.n_ranks(); ++r) {
    const auto n_layers = std::count_if(layers.begin(), layers.end(),
                                        [r](const LayerPlan& layer) { return layer.decider == r; });
    if (n_layers == 0) continue;
    notes += fmt::format("In {} layers rank {} chooses the CPUs' neurons, too.\n", n_layers, r);
  }
  return fmt::format(
      "{}\n{}\n{}{}: predicted {:.2f} ms a token, {:.1f} tokens/s; {} of {} layers whole on a "
      "GPU\n",
      Aligned(rows), MemoryTable(hardware, fleet), notes, shape.name, step_us / 1e3, 1e6 / step_us,
      fleet.n_whole_layers, layers.size());
}

}  // namespace thermocline
