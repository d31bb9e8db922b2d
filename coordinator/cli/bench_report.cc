// Figures as a Markdown table and as JSON.
#include "coordinator/cli/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace thermocline {

double Median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
}

double BenchRow::MedianTs() const { return Median(samples_ts); }

double BenchRow::BandwidthShare() const {
  return MedianTs() * static_cast<double>(token_bytes) / (read_gbps * 1e9);
}

std::string BenchTable(const std::vector<BenchRow>& rows) {
  std::string table =
      "| model | size | workers | threads | transport | isa | test | tokens/s, median (min to max) "
      "| read GB/s | share of it |\n"
      "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |\n";
  for (const BenchRow& row : rows) {
    const auto [min, max] = std::minmax_element(row.samples_ts.begin(), row.samples_ts.end());
    const std::string test =
        row.is_decode() ? fmt::format("tg{}", row.n_gen) : fmt::format("pp{}", row.n_prompt);
    const std::string share =
        row.is_decode() ? fmt::format("{:.1f} %", row.BandwidthShare() * 100) : "";
    table += fmt::format(
        "| {} | {:.2f} GB | {} | {} | {} | {} | {} | {:.2f} ({:.2f} to {:.2f}) | {:.1f} | {} |\n",
        row.model, row.model_bytes / 1e9, row.n_workers, row.n_threads, row.transport, row.isa,
        test, row.MedianTs(), *min, *max, row.read_gbps, share);
  }
  return table;
}

std::string BenchJson(const std::vector<BenchRow>& rows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const BenchRow& row : rows) {
    json.push_back({{"n_prompt", row.n_prompt},
                    {"n_gen", row.n_gen},
                    {"n_threads", row.n_threads},
                    {"n_workers", row.n_workers},
                    {"transport", row.transport},
                    {"isa", row.isa},
                    {"sparsity", row.sparsity},
                    {"median_ts", row.MedianTs()},
                    {"samples_ts", row.samples_ts},
                    {"read_gbps", row.read_gbps},
                    {"token_bytes", row.token_bytes},
                    {"bandwidth_share", nullptr}});
    if (row.is_decode()) json.back()["bandwidth_share"] = row.BandwidthShare();
  }
  return json.dump(2) + "\n";
}

}  // namespace thermocline
