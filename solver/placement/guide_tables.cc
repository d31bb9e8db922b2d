// What users were told (memory, layers, throughput) beside what the planner predicts.
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "common/util/status_macros.h"
#include "solver/placement/choose_modes.h"
#include "solver/placement/hot_cold.h"
#include "solver/placement/published.h"

namespace thermocline {
namespace {

constexpr int64_t kContext = 4096;
constexpr char kType[] = "q4_k_m";
// "34B" of the guide has 60 layers, as Yi-34B.
constexpr const char* kShapes[] = {"7b", "13b", "yi-34b", "70b"};

// Predicted rate, or why there is none. ReLU variants: hot and cold neurons, the fastest mode;
// stock: split by layers, every neuron computed.
struct Answer {
  double rate = 0;
  int64_t n_whole_layers = 0;
  double gpu_gib = 0;
  std::string mode;
  std::string error;
};

Answer Ask(const std::string& shape_name, bool is_relu, const std::string& hardware_text,
           int64_t n_gpu_layers, std::optional<Sparsity> mode = std::nullopt) {
  Answer answer;
  const auto ask = [&]() -> absl::Status {
    ShapeDescription description = {shape_name, kType, is_relu, is_relu ? 0.06 : 0};
    ASSIGN_OR_RETURN(const ModelShape shape, DescribeShape(description));
    ASSIGN_OR_RETURN(const Hardware hardware, ParseHardware(hardware_text));
    const FiringKnowledge firing = {FiringOfCurve(shape, DefaultCurve(shape)),
                                    is_relu ? "described" : ""};
    ModeRequest mode_request;
    mode_request.mode = is_relu ? mode : Sparsity::kOff;
    ASSIGN_OR_RETURN(const ModeChoices modes,
                     ChooseModes(shape, firing.tables, {nullptr, true}, mode_request));
    PlacementRequest request;
    request.n_ctx = kContext;
    request.n_gpu_layers = n_gpu_layers;
    ASSIGN_OR_RETURN(const PlannedFleet fleet,
                     PlanHotCold(shape, hardware, firing, modes, request));
    answer.rate = 1e6 / fleet.plan.predicted_us;
    answer.n_whole_layers = fleet.n_whole_layers;
    answer.gpu_gib = fleet.ranks[0].total_bytes() / (1024.0 * 1024 * 1024);
    answer.mode = SparsityName(fleet.modes[0].mode);
    return absl::OkStatus();
  };
  const absl::Status status = ask();
  if (!status.ok()) answer.error = std::string(status.message());
  return answer;
}

std::string RateText(const Answer& answer) {
  return answer.error.empty() ? fmt::format("{:.1f}", answer.rate) : "does not fit";
}

std::string MemoryTable() {
  struct Row {
    const char *shape, *name;
    int gpu_gib, ram_gib;
  };
  constexpr Row kRows[] = {{"7b", "7B", 4, 16},
                           {"13b", "13B", 6, 32},
                           {"yi-34b", "34B", 12, 64},
                           {"70b", "70B", 16, 128}};
  std::string text =
      "| guide: Q4_K_M with so much memory | stock (SwiGLU): whole layers, tokens/s | ReLU "
      "variant: "
      "tokens/s |\n| --- | --- | --- |\n";
  for (const Row& row : kRows) {
    const std::string hardware =
        fmt::format("gpu({}GiB,936GB/s)+({}GiB,60GB/s)", row.gpu_gib, row.ram_gib);
    const Answer stock = Ask(row.shape, false, hardware, kAutoLayers);
    const Answer relu = Ask(row.shape, true, hardware, kAutoLayers);
    text +=
        fmt::format("| {}: {} GB device, {} GB RAM | {} layers, {} | {} |\n", row.name, row.gpu_gib,
                    row.ram_gib, stock.n_whole_layers, RateText(stock), RateText(relu));
  }
  return text;
}

std::string LayersTable() {
  constexpr int kGib[] = {8, 16, 24, 48};
  constexpr int64_t kGuide[4][4] = {
      {32, 20, 10, 4}, {32, 40, 25, 10}, {32, 40, 60, 20}, {32, 40, 60, 80}};
  std::string text =
      "| device memory | 7B (of 32) | 13B (of 40) | 34B (of 60) | 70B (of 80) |\n"
      "| --- | --- | --- | --- | --- |\n";
  for (int i = 0; i < 4; ++i) {
    text += fmt::format("| {} GB", kGib[i]);
    for (int j = 0; j < 4; ++j) {
      const std::string hardware = fmt::format("gpu({}GiB,936GB/s)+(128GiB,60GB/s)", kGib[i]);
      const Answer most = Ask(kShapes[j], false, hardware, kAutoLayers);
      const Answer promised = Ask(kShapes[j], false, hardware, kGuide[i][j]);
      text += fmt::format(" | {} promised, {}; {} fit", kGuide[i][j],
                          promised.error.empty() ? "yes" : "**out of reach**", most.n_whole_layers);
    }
    text += " |\n";
  }
  return text;
}

std::string ThroughputTable() {
  struct Row {
    const char *what, *hardware;
    int64_t n_gpu_layers;
    bool is_relu;
    std::optional<Sparsity> mode;  // of ReLU variants; none: auto
    double low, high;              // what the guide promises
  };
  constexpr char k3090[] = "rtx3090+(64GiB,60GB/s)", k4090[] = "rtx4090+(64GiB,60GB/s)";
  constexpr char k40g[] = "a100-40g+(128GiB,140GB/s)", k80g[] = "a100-80g+(128GiB,140GB/s)";
  const Row rows[] = {
      {"CPU only", "(128GiB,60GB/s)", 0, false, {}, 1, 1},
      {"RTX 3090, 20 of 80 layers, as llama.cpp", k3090, 20, false, {}, 4, 4},
      {"RTX 3090, 20 of 80 layers, with predictor", k3090, 20, true, Sparsity::kPredict, 12, 12},
      {"RTX 3090, 20 of 80 layers, fastest mode", k3090, 20, true, {}, 12, 12},
      {"RTX 3090", k3090, kAutoLayers, true, {}, 8, 12},
      {"RTX 3090, stock", k3090, kAutoLayers, false, {}, 8, 12},
      {"RTX 4090", k4090, kAutoLayers, true, {}, 12, 18},
      {"RTX 4090, stock", k4090, kAutoLayers, false, {}, 12, 18},
      {"A100 40 GB", k40g, kAutoLayers, true, {}, 35, 45},
      {"A100 40 GB, stock", k40g, kAutoLayers, false, {}, 35, 45},
      {"A100 80 GB", k80g, kAutoLayers, true, {}, 50, 60},
      {"A100 80 GB, stock", k80g, kAutoLayers, false, {}, 50, 60},
  };
  std::string text =
      "| 70B Q4_K_M | weights | guide, tokens/s | predicted | mode | |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  for (const Row& row : rows) {
    const Answer answer = Ask("70b", row.is_relu, row.hardware, row.n_gpu_layers, row.mode);
    const bool is_met = answer.error.empty() && std::round(answer.rate * 10) / 10 >= row.low;
    text +=
        fmt::format("| {} | {} | {} | {} | {} | {} |\n", row.what,
                    row.is_relu ? "ReLU variant" : "stock (SwiGLU)",
                    row.low == row.high ? fmt::format("{:g}", row.low)
                                        : fmt::format("{:g} to {:g}", row.low, row.high),
                    RateText(answer), answer.mode, is_met ? "within reach" : "**out of reach**");
  }
  return text;
}

}  // namespace

std::string GuideTables() {
  return "Memory, 4,096 tokens of context, a GPU of 936 GB/s, RAM of 60 GB/s:\n\n" + MemoryTable() +
         "\nLayers on the GPU, 4,096 tokens of context:\n\n" + LayersTable() + "\nThroughput:\n\n" +
         ThroughputTable();
}

}  // namespace thermocline
