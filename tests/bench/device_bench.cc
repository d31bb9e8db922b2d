// Times the operations of a GPU worker's device beside a plain read of the same card in the same
// run: what share of the bandwidth does each kernel reach? Not a test; the tests only see that it
// runs, on the emulated device.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/util/flags.h"
#include "common/util/status_macros.h"
#include "gpu_worker/device.h"
#include "tests/bench/device_bench_cases.h"
#include "tests/bench/device_bench_timer.h"

namespace thermocline::kernels {
namespace {

constexpr int kExitUsage = 2;  // also: there is no such device

constexpr char kUsage[] =
    "Times each operation of a GPU worker at the shapes of a 7B model, beside a plain read of the\n"
    "card's memory. us: the median of 9 batches of launches; /best: over the fastest batch. "
    "Bytes:\n"
    "what has to be read and written once. Share: of the plain read of much memory in one kernel;\n"
    "same read: of a plain read of as many bytes as the operation has. h: the host needed all of\n"
    "the time to launch, the card may be faster. Operations whose inputs stay in the caches have\n"
    "no share.\n"
    "  device_bench --gpu-device cuda:0 --json rows.json";

struct Options {
  std::string device = "cuda:0";
  std::string json_file;
  bool is_small = false;
};

struct Row {
  DeviceCase of;
  LaunchTime time = {};
  double gbps = 0;
  double same_read_gbps = 0;  // 0: not from memory
};

struct Report {
  std::string device;
  double read_gbps = 0;
  double launch_us = 0;
  double round_trip_us = 0;
  std::vector<Row> rows;

  double ShareOf(const Row& row) const { return row.gbps / read_gbps; }
};

absl::StatusOr<Report> Measure(const Options& options, Device* device) {
  const DeviceSizes sizes = options.is_small ? SmallSizes() : SizesOf7b();
  ASSIGN_OR_RETURN(const std::unique_ptr<DeviceTimer> timer,
                   DeviceTimer::Create(device, sizes.copies_bytes, options.is_small));
  ASSIGN_OR_RETURN(const std::unique_ptr<DeviceInputs> inputs, MakeDeviceInputs(device, sizes));
  Report report;
  report.device = device->description();
  report.launch_us = timer->launch_us();
  report.round_trip_us = timer->round_trip_us();
  ASSIGN_OR_RETURN(report.read_gbps, timer->ReadGbps(timer->n_bytes()));
  for (const DeviceCase& of : MakeDeviceCases(*inputs)) {
    Row row = {.of = of};
    ASSIGN_OR_RETURN(row.time, timer->Time(of.op.c_str(), of.stride_bytes, of.launch));
    row.gbps = static_cast<double>(of.n_bytes) / row.time.median_us * 1e-3;
    if (of.stride_bytes > 0) {
      ASSIGN_OR_RETURN(row.same_read_gbps, timer->ReadGbps(of.n_bytes));
    }
    report.rows.push_back(row);
  }
  return report;
}

void Print(const Report& report) {
  fmt::print("{}\nplain read {:.0f} GB/s; a launch {:.1f} us, with a wait {:.1f} us\n\n",
             report.device, report.read_gbps, report.launch_us, report.round_trip_us);
  fmt::print(
      "| op | what | type | tokens | MB | us | /best | GB/s | share | same read | target |\n"
      "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
  for (const Row& row : report.rows) {
    std::string share, same, target;
    if (row.same_read_gbps > 0) {
      share = fmt::format("{:.0f} %", 100 * report.ShareOf(row));
      same = fmt::format("{:.0f} %", 100 * row.gbps / row.same_read_gbps);
    }
    if (row.of.target > 0) {
      target = fmt::format("{:.0f} %{}", 100 * row.of.target,
                           report.ShareOf(row) >= row.of.target ? "" : ", missed");
    }
    fmt::print("| {} | {} | {} | {} | {:.2f} | {:.1f}{} | {:.2f} | {:.0f} | {} | {} | {} |\n",
               row.of.op, row.of.what, row.of.type, row.of.n_tokens,
               static_cast<double>(row.of.n_bytes) * 1e-6, row.time.median_us,
               row.time.is_host_bound ? " h" : "", row.time.median_us / row.time.best_us, row.gbps,
               share, same, target);
  }
}

absl::Status WriteJson(const Report& report, const std::string& file) {
  nlohmann::json json = {{"device", report.device},
                         {"read_gbps", report.read_gbps},
                         {"launch_us", report.launch_us},
                         {"round_trip_us", report.round_trip_us},
                         {"rows", nlohmann::json::array()}};
  for (const Row& row : report.rows) {
    const bool is_from_memory = row.same_read_gbps > 0;
    json["rows"].push_back(
        {{"op", row.of.op},
         {"what", row.of.what},
         {"type", row.of.type},
         {"n_tokens", row.of.n_tokens},
         {"bytes", row.of.n_bytes},
         {"us", row.time.median_us},
         {"best_us", row.time.best_us},
         {"is_host_bound", row.time.is_host_bound},
         {"gbps", row.gbps},
         {"share", is_from_memory ? nlohmann::json(report.ShareOf(row)) : nlohmann::json()},
         {"same_read_gbps", is_from_memory ? nlohmann::json(row.same_read_gbps) : nlohmann::json()},
         {"target", row.of.target > 0 ? nlohmann::json(row.of.target) : nlohmann::json()}});
  }
  std::ofstream out(file);
  out << json.dump(1) << '\n';
  out.flush();
  if (out) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("{}: cannot be written; give --json a file in a folder that is yours", file));
}

int Fail(const absl::Status& status, int exit_code) {
  fmt::print(stderr, "device_bench: error: {}\n", std::string(status.message()));
  return exit_code;
}

int Main(int argc, char** argv) {
  Options options;
  FlagSet flags("device_bench", kUsage);
  flags.String({"--gpu-device"}, "DEVICE", &options.device, "cuda:N or emulated");
  flags.String({"--json"}, "FILE", &options.json_file, "write the rows there, too");
  flags.Bool({"--small"}, &options.is_small,
             "tiny shapes, each timed once: for the emulated device; says nothing of speed");
  const absl::Status status = flags.Parse(argc, argv);
  if (!status.ok()) return Fail(status, kExitUsage);
  if (flags.help()) {
    fmt::print("{}", flags.Help());
    return 0;
  }
  const absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(options.device);
  if (!device.ok()) return Fail(device.status(), kExitUsage);
  const absl::StatusOr<Report> report = Measure(options, device->get());
  if (!report.ok()) return Fail(report.status(), 1);
  Print(*report);
  if (options.json_file.empty()) return 0;
  const absl::Status written = WriteJson(*report, options.json_file);
  return written.ok() ? 0 : Fail(written, 1);
}

}  // namespace
}  // namespace thermocline::kernels

int main(int argc, char** argv) { return thermocline::kernels::Main(argc, argv); }
