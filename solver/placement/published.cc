// Published rates of PowerInfer and llama.cpp, and ours for the same machines by the cost model.
#include "solver/placement/published.h"

#include <fmt/format.h>

#include "common/util/status_macros.h"
#include "solver/placement/hot_cold.h"

namespace thermocline {
namespace {

enum class Peer { kPowerInfer, kLlamaCpp };

struct Case {
  Peer peer;
  const char* shape;
  const char* type;
  const char* hardware;
  const char* machine;
  double published;        // tokens/s
  FiringCurve curve;       // firing 1: all are computed
  double predictor_share;  // of the layers' weights
  int64_t n_gpu_layers;    // llama.cpp; kAutoLayers: as many as fit
  double hot_share;        // of the neurons on the GPU by fiat, or -1: as many as fit
  int64_t n_ctx;
  const char* source;
  const char* not_covered;
};

// PowerInfer's machines: PC-High has 8 fast cores with 67.2 GB/s, PC-Low 38.4 GB/s. Firing: its
// Table 3 (OPT 97 %, Bamboo 90 %, Yi-34B 53 %, 13B SwiGLU 43 % of neurons left out). Skew: OPT's
// MLP block, for Bamboo the same (not published); SwiGLU's as of LLaMA2-70B.
constexpr char kPcHigh[] = "rtx4090+(192GiB,67.2GB/s)";
constexpr char kPcLow[] = "rtx2080ti+(64GiB,38.4GB/s)";
constexpr char kH100[] = "h100+(125GiB,105GB/s)";
constexpr FiringCurve kDense = {1, 1, 1};
constexpr FiringCurve kOpt = {0.03, 0.26, 0.80};
constexpr FiringCurve kBamboo = {0.10, 0.26, 0.80};
constexpr FiringCurve kYi = {0.47, 0.69, 0.80};
constexpr FiringCurve kSwiglu13b = {0.57, 0.69, 0.80};
constexpr FiringCurve kPlanted = {0.115, 0.10, 0.47};
constexpr char kTable8[] = "arXiv 2312.12456, Table 8";
constexpr char kTable5[] = "the same, Table 5";
constexpr char kAblation[] = "the same, 3.62x less than PowerInfer";
constexpr char kMeasured[] = "measured 2026-11-23, 7B shape with planted sparsity";
constexpr char kComputeBound[] =
    "its threads on this virtual machine reach 38 to 51 of 105 GB/s: bound by arithmetic";

const Case kCases[] = {
    {Peer::kLlamaCpp, "opt-30b", "f16", kPcHigh, "PC-High", 1.1, kDense, 0, kAutoLayers, -1, 256,
     kTable8, ""},
    {Peer::kLlamaCpp, "yi-34b", "f16", kPcHigh, "PC-High", 1.0, kDense, 0, kAutoLayers, -1, 256,
     kTable8, ""},
    {Peer::kLlamaCpp, "13b", "f16", kPcLow, "PC-Low", 2.1, kDense, 0, kAutoLayers, -1, 256, kTable8,
     ""},
    {Peer::kLlamaCpp, "bamboo-7b", "f16", kPcLow, "PC-Low", 1e3 / (37.4 * 3.62), kDense, 0,
     kAutoLayers, -1, 256, kAblation, ""},
    {Peer::kPowerInfer, "opt-30b", "f16", kPcHigh, "PC-High", 12.0, kOpt, 0.06, 0, -1, 256, kTable8,
     ""},
    {Peer::kPowerInfer, "yi-34b", "f16", kPcHigh, "PC-High", 1.7, kYi, 0.06, 0, -1, 256, kTable8,
     ""},
    {Peer::kPowerInfer, "13b", "f16", kPcLow, "PC-Low", 3.1, kSwiglu13b, 0.06, 0, -1, 256, kTable8,
     ""},
    {Peer::kPowerInfer, "bamboo-7b", "f16", kPcLow, "PC-Low", 1e3 / 37.4, kBamboo, 0.06, 0, -1, 256,
     kTable5, ""},
    {Peer::kPowerInfer, "bamboo-7b", "f16", kPcHigh, "PC-High", 1e3 / 11.85, kBamboo, 0.06,
     kAllLayers, -1, 256, "the same, Table 9", ""},
    {Peer::kPowerInfer, "7b", "q4_0", kH100, "H100, 29 % hot", 39.0, kPlanted, 0.04, 0, 0.29, 256,
     kMeasured, ""},
    {Peer::kPowerInfer, "7b", "q4_0", kH100, "H100, 10 % hot", 36.3, kPlanted, 0.04, 0, 0.10, 256,
     kMeasured, ""},
    {Peer::kPowerInfer, "7b", "q4_0", kH100, "H100, none hot", 34.2, kPlanted, 0.04, 0, 0, 256,
     kMeasured, ""},
    {Peer::kLlamaCpp, "7b", "q4_0", kH100, "H100, 19 layers", 23.4, kDense, 0, 19, -1, 256,
     kMeasured, kComputeBound},
    {Peer::kLlamaCpp, "7b", "q4_0", kH100, "H100, 13 layers", 16.7, kDense, 0, 13, -1, 256,
     kMeasured, kComputeBound},
    {Peer::kLlamaCpp, "7b", "q4_0", kH100, "H100, no layers", 13.8, kDense, 0, 0, -1, 256,
     kMeasured, kComputeBound},
};

absl::StatusOr<double> PredictRate(const Case& row) {
  const bool is_powerinfer = row.peer == Peer::kPowerInfer;
  ShapeDescription description;
  description.shape = row.shape;
  description.type = row.type;
  description.is_relu = true;
  description.predictor_share = row.predictor_share;
  ASSIGN_OR_RETURN(const ModelShape shape, DescribeShape(description));
  ASSIGN_OR_RETURN(const Hardware hardware, ParseHardware(row.hardware));
  FiringKnowledge firing = {FiringOfCurve(shape, row.curve), is_powerinfer ? "published" : ""};
  const LayerMode mode = {is_powerinfer ? Sparsity::kPredict : Sparsity::kOff, 0,
                          is_powerinfer ? row.curve.firing : 1};
  const ModeChoices modes = {std::vector<LayerMode>(shape.config.n_layers, mode)};
  PlacementRequest request;
  request.engine = is_powerinfer ? PowerInferEngine() : LlamaCppEngine();
  request.n_ctx = row.n_ctx;
  request.n_gpu_layers = row.n_gpu_layers;
  if (row.hot_share >= 0) {  // a budget that holds just these
    PlacementRequest all = request;
    all.n_gpu_layers = kAllLayers;
    ASSIGN_OR_RETURN(const PlannedFleet fleet, PlanHotCold(shape, hardware, firing, modes, all));
    const PlannedRank& gpu = fleet.ranks[0];
    request.vram_budget_bytes =
        gpu.total_bytes() - (1 - row.hot_share) * gpu.neuron_bytes + 1024 * 1024;
  }
  ASSIGN_OR_RETURN(const PlannedFleet fleet, PlanHotCold(shape, hardware, firing, modes, request));
  return 1e6 / fleet.plan.predicted_us;
}

}  // namespace

absl::StatusOr<std::vector<PublishedRate>> ComparePublished() {
  std::vector<PublishedRate> rates;
  for (const Case& row : kCases) {
    PublishedRate rate = {row.peer == Peer::kPowerInfer ? "PowerInfer" : "llama.cpp",
                          fmt::format("{} {}", row.shape, row.type),
                          row.machine,
                          row.source,
                          row.published,
                          0,
                          row.not_covered};
    ASSIGN_OR_RETURN(rate.predicted, PredictRate(row));
    rates.push_back(std::move(rate));
  }
  return rates;
}

std::string PublishedTable(const std::vector<PublishedRate>& rates) {
  std::string table =
      "| engine | model | machine | published tokens/s | predicted | ratio | source |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n";
  for (const PublishedRate& rate : rates) {
    table +=
        fmt::format("| {} | {} | {} | {:.1f} | {:.1f} | {:.2f} | {}{} |\n", rate.engine, rate.model,
                    rate.machine, rate.published, rate.predicted, rate.ratio(), rate.source,
                    rate.not_covered.empty() ? "" : "; not covered: " + rate.not_covered);
  }
  return table;
}

}  // namespace thermocline
