// Shows whether a GPU rank and a CPU rank compute the same layer at the same time: steps of real
// fleets, whose GPU is a device that sleeps instead of computing, so that it takes no core from the
// CPU rank. Not a test; see --help. What a step costs on real devices is bench's.
//
// Four fleets differ only in who holds the neurons of each layer. A third rank, a device that
// computes nothing and takes no time, holds what a fleet leaves out, so exchanges are the same:
//   base   attention on the GPU, no neurons
//   GPU    base, and the GPU's neurons         CPU    base, and the CPU's neurons
//   both   base, and both
// All four wait for attention and for each other. So if ranks overlap, both is max(GPU, CPU), with
// the exchanges in it; if they take turns, it is GPU + CPU - base.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/rpc/channel.h"
#include "common/util/flags.h"
#include "common/util/status_macros.h"
#include "coordinator/engine/fleet.h"
#include "solver/placement/cost_model.h"
#include "tests/testing/tiny_llama.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kGpu = 0, kCpu = 1, kSpare = 2, kRanks = 3;
constexpr double kNoBytes = 1e9;  // GB/s of devices whose time does not come from bytes
constexpr int64_t kContext = 512;
constexpr int64_t kWarmUp = 2;  // tokens

struct Options {
  std::string model;
  std::string isa = "auto";
  int64_t d_ff = 65536;
  int64_t sleep_us = 1000;
  int64_t n_threads = 1;
  int64_t n_tokens = 2;
  int64_t n_repeats = 12;
};

// Files that end with the program.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("overlap_bench.{}.{}", getpid(), name)) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

// The last neurons of the file are the GPU's, which takes as long for many, the first ones the
// CPU's.
struct Split {
  bool gpu_computes = false;
  int64_t n_cpu = 0;
};

// A fleet and where its only sequence is.
struct Running {
  std::unique_ptr<Fleet> fleet;
  int32_t position = 0;
  std::vector<double> steps_us;
};

class Bench {
 public:
  Bench(const Options& options, std::string model_path, std::string model_hash, ModelShape shape)
      : options_(options),
        model_path_(std::move(model_path)),
        model_hash_(std::move(model_hash)),
        shape_(std::move(shape)) {}
  absl::Status Run();

 private:
  Plan PlanOf(const Split& split) const;
  absl::StatusOr<Running> Start(const Split& split) const;
  absl::Status Decode(int64_t n_tokens, Running* running) const;
  // Medians of their steps, in microseconds. They run in turns, so that what else the machine does
  // meets all of them.
  absl::StatusOr<std::vector<double>> Measure(const std::vector<Running*>& fleets) const;
  absl::Status Calibrate();
  absl::Status Row(double wanted);
  double Predict(const Split& split) const;
  int64_t n_layers() const { return shape_.config.n_layers; }

  const Options options_;
  const std::string model_path_, model_hash_;
  const ModelShape shape_;
  Running base_, gpu_;
  double gpu_us_ = 0;           // of the GPU's neurons, all layers
  double cpu_neuron_us_ = 0;    // of one of the CPU's neurons, all layers
  int64_t n_ffn_kernels_ = 0;   // of a layer
  int64_t n_head_kernels_ = 0;  // the same
  double exchange_us_ = 0;      // of a layer
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Plan Bench::PlanOf(const Split& split) const {
  const ModelConfig& config = shape_.config;
  Plan plan;
  plan.model_hash = model_hash_;
  plan.ranks.resize(kRanks);
  plan.ranks[kGpu].kind = plan.ranks[kSpare].kind = RankKind::kGpu;
  plan.ranks[kGpu].device = fmt::format("emulated:sleep={}", options_.sleep_us);
  plan.ranks[kSpare].device = "emulated:sleep=0";
  plan.ranks[kCpu].n_threads = static_cast<int32_t>(options_.n_threads);
  LayerPlan layer;
  layer.kv_heads.resize(kRanks);
  layer.kv_heads[kGpu] = {0, config.n_kv_heads};
  layer.kv_heads[kCpu] = layer.kv_heads[kSpare] = {config.n_kv_heads, config.n_kv_heads};
  layer.neurons.resize(kRanks);
  const int64_t gpu_begin = config.d_ff - kNeuronUnit;
  if (split.n_cpu > 0) layer.neurons[kCpu] = {{0, split.n_cpu}};
  const int64_t spare_end = split.gpu_computes ? gpu_begin : config.d_ff;
  if (split.gpu_computes) layer.neurons[kGpu] = {{gpu_begin, config.d_ff}};
  if (split.n_cpu < spare_end) layer.neurons[kSpare] = {{split.n_cpu, spare_end}};
  plan.layers.assign(config.n_layers, layer);
  plan.vocab = {{0, 0}, {0, 0}, {0, config.n_vocab}};
  return plan;
}

absl::StatusOr<Running> Bench::Start(const Split& split) const {
  const TemporaryFile plan("plan.json");
  RETURN_IF_ERROR(WritePlan(PlanOf(split), plan.path()));
  FleetOptions options;
  options.model_path = model_path_;
  options.plan_path = plan.path();
  options.isa = options_.isa;
  options.sparsity.mode = "off";
  options.n_ctx = kContext;
  options.batch_size = 1;
  Running running;
  ASSIGN_OR_RETURN(running.fleet, Fleet::Start(options, nullptr, nullptr));
  RETURN_IF_ERROR(Decode(kWarmUp, &running));
  return running;
}

absl::Status Bench::Decode(int64_t n_tokens, Running* running) const {
  for (int64_t i = 0; i < n_tokens; ++i) {
    const TokenInput input = {.token = 1,
                              .slot = 0,
                              .position = running->position++ % static_cast<int32_t>(kContext),
                              .wants_logits = false};
    const Clock::time_point start = Clock::now();
    RETURN_IF_ERROR(running->fleet->Run({input}));
    const std::chrono::duration<double, std::micro> took = Clock::now() - start;
    running->steps_us.push_back(took.count());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> Bench::Measure(const std::vector<Running*>& fleets) const {
  for (Running* fleet : fleets) fleet->steps_us.clear();
  for (int64_t repeat = 0; repeat < options_.n_repeats; ++repeat) {
    for (Running* fleet : fleets) RETURN_IF_ERROR(Decode(options_.n_tokens, fleet));
  }
  std::vector<double> medians;
  for (const Running* fleet : fleets) medians.push_back(Median(fleet->steps_us));
  return medians;
}

// How long each rank takes, and from that what the planner is told of this machine: kernels of a
// layer, the CPU's bandwidth, an exchange.
absl::Status Bench::Calibrate() {
  const int64_t n_cpu = shape_.config.d_ff / 2 / kNeuronUnit * kNeuronUnit;
  ASSIGN_OR_RETURN(base_, Start({}));
  ASSIGN_OR_RETURN(gpu_, Start({.gpu_computes = true}));
  ASSIGN_OR_RETURN(Running cpu, Start({.n_cpu = n_cpu}));
  ASSIGN_OR_RETURN(const std::vector<double> us, Measure({&base_, &gpu_, &cpu}));
  const double sleeps_us = static_cast<double>(n_layers() * options_.sleep_us);
  gpu_us_ = us[1] - us[0];
  cpu_neuron_us_ = (us[2] - us[0]) / static_cast<double>(n_cpu);
  // What else a kernel's wake-up costs makes more of them, never fewer.
  n_ffn_kernels_ = static_cast<int64_t>(gpu_us_ / sleeps_us + 0.25);
  n_head_kernels_ = static_cast<int64_t>(us[0] / sleeps_us);
  exchange_us_ = us[0] / static_cast<double>(n_layers()) -
                 static_cast<double>(n_head_kernels_ * options_.sleep_us);
  const double neuron_bytes = static_cast<double>(n_layers()) * shape_.layers[0].neuron_bytes();
  fmt::print(
      "A layer on the GPU: attention in {} kernels of {} us, neurons in {}; two exchanges {:.0f} "
      "us; the CPU reads {:.1f} GB/s\n\n",
      n_head_kernels_, options_.sleep_us, n_ffn_kernels_, exchange_us_,
      neuron_bytes / (cpu_neuron_us_ * 1e3));
  return absl::OkStatus();
}

double Bench::Predict(const Split& split) const {
  Hardware hardware;
  hardware.ranks.resize(kRanks);
  for (const int32_t rank : {kGpu, kSpare}) {
    hardware.ranks[rank].kind = RankKind::kGpu;
    hardware.ranks[rank].gbps = hardware.ranks[rank].link_gbps = kNoBytes;
  }
  const double neuron_bytes = static_cast<double>(n_layers()) * shape_.layers[0].neuron_bytes();
  hardware.ranks[kCpu].gbps = neuron_bytes / (cpu_neuron_us_ * 1e3) / kCpuShare;
  const auto sleep_us = static_cast<double>(options_.sleep_us);
  const Engine engine = {.gpu_layer_us = static_cast<double>(n_head_kernels_) * sleep_us,
                         .handover_us = exchange_us_,
                         .gpu_ffn_us = static_cast<double>(n_ffn_kernels_) * sleep_us};
  const std::vector<FiringTable> firing = FiringOfCurve(shape_, DefaultCurve(shape_));
  std::vector<std::vector<double>> touched;
  for (size_t i = 0; i < shape_.layers.size(); ++i) {
    touched.push_back(TouchedBytes(shape_.layers[i], shape_.weight_bits, firing[i], {}));
  }
  Plan plan = PlanOf(split);
  CostModel(shape_, hardware, engine, kContext).Predict(touched, &plan);
  return plan.predicted_us;
}

absl::Status Bench::Row(double wanted) {
  const auto most = shape_.config.d_ff - kNeuronUnit;
  const auto n_units = static_cast<int64_t>(wanted * gpu_us_ / cpu_neuron_us_ / kNeuronUnit);
  const int64_t n_cpu = std::clamp<int64_t>(n_units * kNeuronUnit, kNeuronUnit, most);
  const Split both = {true, n_cpu};
  ASSIGN_OR_RETURN(Running cpu, Start({.n_cpu = n_cpu}));
  ASSIGN_OR_RETURN(Running together, Start(both));
  ASSIGN_OR_RETURN(const std::vector<double> us, Measure({&base_, &gpu_, &cpu, &together}));
  const double most_us = std::max(us[1], us[2]), turns_us = us[1] + us[2] - us[0];
  const double predicted_us = Predict(both);
  fmt::print(
      "| {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.3f} | {:.2f} | {:.2f} | "
      "{:.3f} |\n",
      (us[2] - us[0]) / (us[1] - us[0]), us[0] / 1e3, us[1] / 1e3, us[2] / 1e3, us[3] / 1e3,
      most_us / 1e3, us[3] / most_us, turns_us / 1e3, predicted_us / 1e3, predicted_us / us[3]);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Bench::Run() {
  RETURN_IF_ERROR(Calibrate());
  fmt::print("Milliseconds of a step, medians of {}:\n\n", options_.n_repeats * options_.n_tokens);
  fmt::print(
      "| CPU's / GPU's work | base | GPU | CPU | both | max(GPU, CPU) | both / max | in "
      "turns | predicted | predicted / both |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const double wanted : {0.3, 1.0, 2.0}) RETURN_IF_ERROR(Row(wanted));
  return absl::OkStatus();
}

absl::Status RunBench(const Options& options) {
  const TemporaryFile generated("gguf");
  std::string path = options.model;
  if (path.empty()) {
    path = generated.path();
    testing::TinyLlama model;
    model.d_model = 1024;
    model.d_ff = options.d_ff;
    model.n_ctx = kContext;
    model.Builder().WriteTo(path);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  ASSIGN_OR_RETURN(ModelShape shape, ShapeOfGguf(*file));
  return Bench(options, path, file->ContentHash(), std::move(shape)).Run();
}

int Main(int argc, char** argv) {
  PrepareGrpc();
  Options options;
  FlagSet flags("overlap_bench",
                "Decode steps of a GPU that sleeps and a CPU rank, alone and together: do they "
                "overlap, and\nis the planner right?");
  flags.Group("options");
  flags.String({"-m", "--model"}, "FILE", &options.model, "instead of a generated one");
  flags.Int({"--d-ff"}, "N", &options.d_ff, 64, 1 << 20,
            "neurons a layer of the generated model; the CPU's work ends there");
  flags.Int({"--sleep-us"}, "N", &options.sleep_us, 1, 1'000'000, "that a kernel takes");
  flags.Int({"-t", "--threads"}, "N", &options.n_threads, 1, 1024, "of the CPU rank");
  flags.Int({"-n", "--tokens"}, "N", &options.n_tokens, 1, 1000, "of a repeat");
  flags.Int({"--repeats"}, "N", &options.n_repeats, 1, 1000, "fleets take turns");
  flags.Choice({"--isa"}, {"auto", "reference", "avx2", "avx512"}, &options.isa,
               "of the CPU rank; reference is slow enough for a small model");
  if (const absl::Status status = flags.Parse(argc, argv); !status.ok()) {
    fmt::print(stderr, "overlap_bench: error: {}\n", std::string(status.message()));
    return 2;
  }
  if (flags.help()) {
    fmt::print("{}", flags.Help());
    return 0;
  }
  if (const absl::Status status = RunBench(options); !status.ok()) {
    fmt::print(stderr, "overlap_bench: error: {}\n", std::string(status.message()));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
