// What bench prints: rows of figures as a Markdown table or as JSON. No measuring.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace thermocline {

// The mean of the middle two for an even count; at least one sample.
double Median(std::vector<double> samples);

struct BenchRow {
  std::string model;
  int64_t model_bytes = 0;  // of the file
  int64_t n_prompt = 0;     // tokens of a prefill row, else 0
  int64_t n_gen = 0;        // steps of a decode row, else 0
  int64_t n_threads = 0;    // of all workers
  int64_t n_workers = 0;
  std::string transport;
  std::string isa;
  std::string sparsity;
  std::vector<double> samples_ts;  // tokens a second, one for each repeat; not empty
  double read_gbps = 0;    // plain reads by the same threads between the repeats, 1e9 bytes/s
  double token_bytes = 0;  // of weights, that a step of one token reads
  // Of layers that leave neurons out; 1 where there are none.
  double computed_share = 1;
  double fired_share = 1;
  std::vector<std::pair<std::string, double>> time_shares;  // parts of a step, 0..1

  bool is_decode() const { return n_gen > 0; }
  double MedianTs() const;
  // Of the read bandwidth, by a decode row: MedianTs * token_bytes / read_gbps.
  double BandwidthShare() const;
};

std::string BenchTable(const std::vector<BenchRow>& rows);  // Markdown
// Where the time of decode rows goes, Markdown; "" when there are none.
std::string BenchTimes(const std::vector<BenchRow>& rows);
// An array of objects; bandwidth_share is null in prefill rows.
std::string BenchJson(const std::vector<BenchRow>& rows);

}  // namespace thermocline
