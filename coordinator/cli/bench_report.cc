// Figures as a Markdown table and as JSON.
#include "coordinator/cli/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace thermocline {

namespace {

// Where GPUs hold all, no CPU rank reads anything.
bool HasShare(const BenchRow& row) { return row.is_decode() && row.read_gbps > 0; }

}  // namespace

double Median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
}

double BenchRow::MedianTs() const { return Median(samples_ts); }

double BenchRow::BandwidthShare() const { return MedianTs() * token_bytes / (read_gbps * 1e9); }

std::string BenchTable(const std::vector<BenchRow>& rows) {
  std::string table =
      "| model | size | workers | threads | transport | isa | sparsity | test | tokens/s, median "
      "(min to "
      "max) | neurons computed | MB a token | read GB/s | share of it |\n"
      "| --- | ---: | ---: | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const BenchRow& row : rows) {
    const auto [min, max] = std::minmax_element(row.samples_ts.begin(), row.samples_ts.end());
    const std::string test =
        row.is_decode() ? fmt::format("tg{}", row.n_gen) : fmt::format("pp{}", row.n_prompt);
    const std::string share =
        HasShare(row) ? fmt::format("{:.1f} %", row.BandwidthShare() * 100) : "";
    table += fmt::format(
        "| {} | {:.2f} GB | {} | {} | {} | {} | {} | {} | {:.2f} ({:.2f} to {:.2f}) | {:.1f} % | "
        "{:.1f} | {:.1f} | {} |\n",
        row.model, row.model_bytes / 1e9, row.n_workers, row.n_threads, row.transport, row.isa,
        row.sparsity, test, row.MedianTs(), *min, *max, row.computed_share * 100,
        row.token_bytes / 1e6, row.read_gbps, share);
  }
  return table;
}

std::string BenchTimes(const std::vector<BenchRow>& rows) {
  std::string table;
  for (const BenchRow& row : rows) {
    if (!row.is_decode() || row.time_shares.empty()) continue;
    if (table.empty()) {
      std::string head = "| us a token | sparsity |", line = "| ---: | --- |";
      for (const auto& [part, share] : row.time_shares) {
        head += " " + part + " |";
        line += " ---: |";
      }
      table = head + "\n" + line + "\n";
    }
    table += fmt::format("| {:.0f} | {} |", 1e6 / row.MedianTs(), row.sparsity);
    for (const auto& [part, share] : row.time_shares)
      table += fmt::format(" {:.1f} % |", share * 100);
    table += "\n";
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
                    {"computed_share", row.computed_share},
                    {"fired_share", row.fired_share},
                    {"bandwidth_share", nullptr}});
    if (HasShare(row)) json.back()["bandwidth_share"] = row.BandwidthShare();
    for (const auto& [part, share] : row.time_shares) json.back()["time_shares"][part] = share;
  }
  return json.dump(2) + "\n";
}

}  // namespace thermocline
