// Numbers to JSON and to a table.
#include "solver/profile/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/util/version.h"

namespace thermocline {
namespace {

// Share of the neurons computed that fire.
double Precision(const Selection& selection, double firing) {
  return selection.computed > 0 ? std::min(1.0, selection.recall * firing / selection.computed) : 1;
}

nlohmann::ordered_json ToJson(const Selection& selection, double firing) {
  return {{"threshold", selection.threshold},
          {"recall", selection.recall},
          {"mass", selection.mass},
          {"precision", Precision(selection, firing)},
          {"computed", selection.computed}};
}

// Bytes of gate that a sketch of so many bits reads of all neurons.
int64_t SketchBytes(const ModelConfig& config, int bits) {
  return config.d_ff * config.d_model * bits / 8;
}

// Those that were measured, by name.
std::vector<std::pair<std::string, double>> Divergences(const MeasuredKl& kl) {
  std::vector<std::pair<std::string, double>> all = {{"predict", kl.predict}};
  for (int bits = 1; bits <= kMaxSketchBits; ++bits) {
    all.emplace_back(fmt::format("sketch_{}", bits), kl.sketch[bits - 1]);
  }
  all.emplace_back("threshold", kl.threshold);
  std::erase_if(all, [](const auto& mode) { return mode.second < 0; });
  return all;
}

nlohmann::ordered_json LayerToJson(const SolveReport& report, size_t i) {
  const LayerProfile& layer = report.profile.layers[i];
  const double firing = FiringShare(report.profile, static_cast<int64_t>(i));
  nlohmann::ordered_json json = {{"layer", i}, {"firing", firing}};
  if (!report.predictor.empty()) {
    const PredictorSummary& predictor = report.predictor[i];
    nlohmann::ordered_json of = ToJson(predictor.selection, firing);
    of["rank"] = predictor.rank;
    of["bytes"] = predictor.n_bytes;
    of["loss_closed_form"] = predictor.first_loss;
    of["loss"] = predictor.loss;
    json["predictor"] = of;
  }
  if (!report.profile.has_thresholds()) return json;  // counts alone
  for (int bits = 1; bits <= kMaxSketchBits && IsRelu(report.config.activation); ++bits) {
    nlohmann::ordered_json of = ToJson(layer.sketch[bits - 1], firing);
    of["bytes"] = SketchBytes(report.config, bits);
    json[fmt::format("sketch_{}", bits)] = of;
  }
  json["magnitude"] = ToJson(layer.magnitude, firing);
  return json;
}

// A mean over the layers.
template <typename Value>
double Mean(const SolveReport& report, const Value& value) {
  double sum = 0;
  const size_t n = report.profile.layers.size();
  for (size_t i = 0; i < n; ++i) sum += value(i);
  return sum / static_cast<double>(n);
}

std::string Percent(double share) { return fmt::format("{:5.1f}", 100 * share); }

// What stands in a row, in the order of the columns; `value(f)` is f of a layer, or the mean.
std::string Row(const SolveReport& report, const std::string& name, const auto& value) {
  const auto& layers = report.profile.layers;
  std::string row = fmt::format("{:>5}  {:>6}", name, Percent(value([&](size_t i) {
                                  return FiringShare(report.profile, static_cast<int64_t>(i));
                                })));
  if (!report.predictor.empty()) {
    const auto& predictor = report.predictor;
    row += fmt::format(
        "  {:>5.0f} {:>6.0f} {} {} {}",
        value([&](size_t i) { return static_cast<double>(predictor[i].rank); }),
        value([&](size_t i) { return static_cast<double>(predictor[i].n_bytes) / 1024; }),
        Percent(value([&](size_t i) { return predictor[i].selection.computed; })),
        Percent(value([&](size_t i) { return predictor[i].selection.recall; })),
        Percent(value([&](size_t i) { return predictor[i].selection.mass; })));
  }
  if (!report.profile.has_thresholds()) return row + "\n";
  for (int kind = 0; kind < kMaxSketchBits && IsRelu(report.config.activation); ++kind) {
    row += fmt::format("  {} {} {}",
                       Percent(value([&](size_t i) { return layers[i].sketch[kind].computed; })),
                       Percent(value([&](size_t i) { return layers[i].sketch[kind].recall; })),
                       Percent(value([&](size_t i) { return layers[i].sketch[kind].mass; })));
  }
  row +=
      fmt::format("  {} {}", Percent(value([&](size_t i) { return layers[i].magnitude.computed; })),
                  Percent(value([&](size_t i) { return layers[i].magnitude.mass; })));
  return row + "\n";
}

std::string Header(const SolveReport& report) {
  const bool has_thresholds = report.profile.has_thresholds();
  std::string groups = fmt::format("{:>13}", ""),
              names = fmt::format("{:>5}  {:>6}", "layer", "fires");
  if (!report.predictor.empty()) {
    groups += fmt::format("  {:<31}", "predictor");
    names += fmt::format("  {:>5} {:>6} {:>5} {:>5} {:>5}", "rank", "KiB", "comp.", "kept", "mass");
  }
  for (int bits = 1; has_thresholds && bits <= kMaxSketchBits && IsRelu(report.config.activation);
       ++bits) {
    groups += fmt::format("  {:<17}", fmt::format("sketch, {} bit{}", bits, bits > 1 ? "s" : ""));
    names += fmt::format("  {:>5} {:>5} {:>5}", "comp.", "kept", "mass");
  }
  if (has_thresholds) {
    groups += "  threshold";
    names += fmt::format("  {:>5} {:>5}", "comp.", "mass");
  }
  return groups + "\n" + names + "\n";
}

}  // namespace

double FiringShare(const Profile& profile, int64_t layer) {
  const std::vector<uint32_t>& fired = profile.layers[layer].fired;
  double sum = 0;
  for (const uint32_t n : fired) sum += n;
  return sum / (static_cast<double>(profile.n_tokens) * static_cast<double>(fired.size()));
}

std::string ReportJson(const SolveReport& report) {
  const Profile& profile = report.profile;
  nlohmann::ordered_json json = {{"made_by", "thermocline solve"},
                                 {"version", kVersion},
                                 {"model", report.model},
                                 {"model_hash", profile.model_hash},
                                 {"text", report.text},
                                 {"text_hash", profile.text_hash},
                                 {"n_tokens", profile.n_tokens},
                                 {"n_samples", report.n_samples},
                                 {"sketch_recall_target", profile.recall}};
  if (!report.no_predictor.empty()) json["no_predictor"] = report.no_predictor;
  if (!report.plan_error.empty()) json["no_plan"] = report.plan_error;
  if (!report.quality_error.empty()) json["no_mean_kl"] = report.quality_error;
  for (const auto& [name, kl] : Divergences(profile.kl)) json["mean_kl"][name] = kl;
  if (!report.predictor.empty()) {
    int64_t n_bytes = 0;
    for (const PredictorSummary& layer : report.predictor) n_bytes += layer.n_bytes;
    json["predictor_bytes"] = n_bytes;
  }
  double total_s = 0;
  for (const auto& [stage, seconds] : report.stages_s) {
    json["seconds"][stage] = seconds;
    total_s += seconds;
  }
  json["seconds"]["total"] = total_s;
  for (size_t i = 0; i < profile.layers.size(); ++i) {
    json["layers"].push_back(LayerToJson(report, i));
  }
  return json.dump(2) + "\n";
}

std::string ReportTable(const SolveReport& report) {
  std::string table =
      "Shares in percent: neurons that fire; computed, firings kept, and activation "
      "mass kept\nby what rules neurons out, on text it was not set on.\n";
  table += Header(report);
  for (size_t i = 0; i < report.profile.layers.size(); ++i) {
    table += Row(report, std::to_string(i), [i](const auto& of) -> double { return of(i); });
  }
  table += Row(report, "mean", [&](const auto& of) -> double { return Mean(report, of); });
  std::string line;
  for (const auto& [name, kl] : Divergences(report.profile.kl)) {
    line += fmt::format("{}{} {:.5f}", line.empty() ? "" : ", ", name, kl);
  }
  return line.empty() ? table
                      : table + fmt::format("Mean KL from mode off, on text set aside: {}\n", line);
}

}  // namespace thermocline
