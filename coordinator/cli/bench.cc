// `bench`: tokens a second of prefill and decode, beside the bandwidth that the same threads reach
// on plain reads in the same run. Every combination of the lists gets a fleet of its own.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/util/status_macros.h"
#include "coordinator/cli/bench_options.h"
#include "coordinator/cli/bench_report.h"
#include "coordinator/cli/bench_tests.h"
#include "coordinator/cli/program.h"
#include "coordinator/cli/start_fleet.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Measures a model on this machine.\n"
    "  bench -m MODEL.gguf -p 512 -n 128 -t 1,2 --workers 1,2 -o md";
// Far beyond any cache; the best of so many is what the threads can reach.
constexpr int64_t kReadBufferBytes = int64_t{1} << 30;
constexpr int32_t kReadRepeats = 5;

// Columns that all rows of one fleet share.
absl::StatusOr<BenchRow> CommonColumns(Fleet* fleet) {
  BenchRow row;
  row.model = fleet->model().id();
  row.model_bytes = static_cast<int64_t>(fleet->model().file().file_bytes());
  row.n_threads = fleet->n_threads();
  row.n_workers = fleet->plan().n_ranks();
  row.transport = fleet->transport();
  row.isa = fleet->isa();
  row.sparsity = DescribeModes(fleet->plan());
  return row;
}

absl::Status MeasureFleet(const Program& program, const BenchOptions& options,
                          const FleetOptions& fleet_options, std::vector<BenchRow>* rows) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet, StartFleet(program, fleet_options));
  ASSIGN_OR_RETURN(BenchRow row, CommonColumns(fleet.get()));
  // The bandwidth of a shared machine changes within seconds, so it is measured between the
  // repeats; the median stands beside theirs.
  std::vector<double> reads;
  BenchTests tests(fleet.get(), [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const double read, fleet->MeasureReadGbps(kReadBufferBytes, kReadRepeats));
    reads.push_back(read);
    return absl::OkStatus();
  });
  FleetTotals before;
  const auto start_row = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(before, fleet->Totals());
    return absl::OkStatus();
  };
  const auto add_row = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const FleetTotals now, fleet->Totals());
    const FleetTotals totals = now.Since(before);
    row.token_bytes = totals.TokenBytes();
    row.computed_share = totals.leaves_out() ? totals.ComputedShare() : 1;
    row.fired_share = totals.leaves_out() ? totals.FiredShare() : 1;
    row.time_shares.clear();
    for (int part = 0; part < FleetTotals::kParts; ++part) {
      row.time_shares.emplace_back(FleetTotals::kPartNames[part], totals.TimeShare(part));
    }
    row.read_gbps = Median(std::exchange(reads, {}));
    rows->push_back(row);
    return absl::OkStatus();
  };
  for (const int64_t n_prompt : options.n_prompt) {
    if (n_prompt == 0) continue;
    row.n_prompt = n_prompt;
    RETURN_IF_ERROR(start_row());
    ASSIGN_OR_RETURN(row.samples_ts, tests.Prefill(n_prompt, options.n_repeats));
    RETURN_IF_ERROR(add_row());
  }
  row.n_prompt = 0;
  for (const int64_t n_gen : options.n_gen) {
    if (n_gen == 0) continue;
    row.n_gen = n_gen;
    RETURN_IF_ERROR(start_row());
    ASSIGN_OR_RETURN(row.samples_ts, tests.Decode(n_gen, options.n_repeats));
    RETURN_IF_ERROR(add_row());
  }
  return absl::OkStatus();
}

absl::Status MeasureAll(const Program& program, const BenchOptions& options,
                        std::vector<BenchRow>* rows) {
  FleetOptions fleet = options.fleet.options;
  for (const int64_t n_workers : options.n_workers) {
    for (const int64_t n_threads : options.n_threads) {
      if (n_threads > 0 && n_threads < n_workers) {
        program.Note(fmt::format("skipped: {} workers with {} threads", n_workers, n_threads));
        continue;
      }
      for (const std::string& transport : options.transports) {
        for (const std::string& isa : options.isas) {
          fleet.n_workers = n_workers;
          fleet.n_threads = std::max<int64_t>(n_threads, 0);
          fleet.transport = transport;
          fleet.isa = isa;
          for (const std::string& sparsity : options.sparsities) {
            fleet.sparsity.mode = sparsity;
            RETURN_IF_ERROR(MeasureFleet(program, options, fleet, rows));
          }
        }
      }
    }
  }
  return rows->empty() ? absl::InvalidArgumentError("every worker needs a thread; raise --threads")
                       : absl::OkStatus();
}

// What was measured before an error is printed, too.
absl::Status MeasureAndPrint(const Program& program, const BenchOptions& options) {
  std::vector<BenchRow> rows;
  absl::Status status = MeasureAll(program, options, &rows);
  if (!rows.empty()) {
    const std::string tables = BenchTable(rows) + "\n" + BenchTimes(rows);
    status.Update(Program::Print(options.output == "json" ? BenchJson(rows) : tables));
  }
  return status;
}

int Main(int argc, char** argv) {
  Program program("bench");
  BenchOptions options;
  FlagSet flags("bench", kUsage);
  AddBenchFlags(&flags, &options);
  const std::optional<int> exit_code =
      program.ReadFlags(&flags, argc, argv, [&] { return FinishBenchOptions(flags, &options); });
  if (exit_code.has_value()) return *exit_code;
  program.SetVerbosity(options.fleet.quiet, options.fleet.verbose);
  return program.Finish(MeasureAndPrint(program, options));
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
