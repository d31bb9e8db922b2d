// Ranks of this host, and the planner's answer for them.
#include "coordinator/engine/start_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "common/util/memory.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "solver/placement/firing.h"
#include "solver/placement/hot_cold.h"
#include "solver/placement/stream_tokens.h"

namespace thermocline {
namespace {

// A worker beside its weights, KV cache and the buffers of a step.
constexpr double kProgramBytes = 64.0 * 1024 * 1024;
// Of a node's memory: packed weights may be larger than the file's (README.md, "Numbers").
constexpr double kUsableShare = 0.9;
// Of a GPU's free memory, what is left to others when no budget is given.
constexpr double kGpuMargin = 256.0 * 1024 * 1024;
// Of kernels/cuda/device_ops.h and gpu_worker/device_ffn.cc; gpu_fleet_test starts fleets at
// budgets that were planned with them.
constexpr double kDownTokens = 16, kNeuronChunk = 64, kAttendTile = 256, kAttendParts = 1 << 15;
// Of device_product.h and gemm.h: from so many tokens on, weights in f16 and cuBLAS's own.
constexpr int64_t kGemmTokens = 48;
constexpr double kTileBytes = 32.0 * 1024 * 1024, kGemmBytes = 32.0 * 1024 * 1024;
// Of device_decode.cc: nodes of a graph, and what each takes in a program.
constexpr double kLayerNodes = 34, kLayerStamps = 17, kOtherNodes = 12;
constexpr double kProgramStepBytes = 256, kBarrierBytes = 256;
constexpr int64_t kMostStreamed = 1024 + 32;  // neurons of a chunk (neuron_streamer.h)

// Buffers of a step, all ranks taken as the widest can be: values of d_ff and of d_model a token
// (forward.h, sparse_ffn.h), and logits.
double StepBytes(const StartPlanOptions& options, const ModelConfig& config) {
  const auto n_tokens = static_cast<double>(options.batch_size);
  const double of_token =
      5.0 * static_cast<double>(config.d_ff) + 12.0 * static_cast<double>(config.d_model);
  const auto n_logits = static_cast<double>(options.max_logit_rows * config.n_vocab);
  return sizeof(float) * (n_tokens * of_token + n_logits);
}

// The same on a GPU (device_layers.h, device_ffn.h): with a mask and scores of the neurons, partial
// sums of ffn_down and of attention, and tiles of weights for prompts.
double GpuStepBytes(const StartPlanOptions& options, const ModelConfig& config) {
  const auto d_model = static_cast<double>(config.d_model), d_ff = static_cast<double>(config.d_ff);
  const double down_parts = sizeof(float) * kDownTokens * d_model * (d_ff / kNeuronChunk + 1);
  const double of_head = sizeof(float) * static_cast<double>(config.d_head + 2);
  const double of_token = static_cast<double>(config.n_heads) *
                          (std::floor(static_cast<double>(options.n_kv_tokens) / kAttendTile) + 1);
  const double attention_parts =
      of_head * std::max(of_token, std::min(static_cast<double>(options.batch_size) * of_token,
                                            kAttendParts));
  double gemm = 0;
  if (options.batch_size >= kGemmTokens) {
    gemm = kGemmBytes + std::min(kTileBytes, 2 * d_model * std::max(d_model, d_ff)) +
           2 * static_cast<double>(options.batch_size) * std::max(d_model, d_ff);
  }
  const double decided = sizeof(float) * kDownTokens * d_ff;  // scores, for CPU ranks
  return StepBytes(options, config) + down_parts + attention_parts + gemm + decided;
}

// Of the graphs of steps (device_decode.h), as if the context had a tail where it may.
double GraphBytes(const StartPlanOptions& options, const ModelConfig& config) {
  double n_graphs = options.shares_memory ? 2 : 1, node_bytes = 0;
  for (double n_ctx = kAttendTile; n_ctx < static_cast<double>(options.n_ctx); n_ctx *= 2) {
    ++n_graphs;
  }
  for (const GpuDevice& device : options.gpus) {
    node_bytes = std::max(node_bytes, static_cast<double>(device.graph_node_bytes));
  }
  const double of_layer = kLayerNodes + (options.is_traced ? kLayerStamps : 0);
  const double n_operations = static_cast<double>(config.n_layers) * of_layer + kOtherNodes;
  return n_graphs * (n_operations * (node_bytes + kProgramStepBytes) + kBarrierBytes);
}

// The emulated device streams nothing that it was not told to.
bool MayStream(const StartPlanOptions& options) {
  return options.batch_size >= kGemmTokens &&
         std::none_of(options.gpus.begin(), options.gpus.end(), [](const GpuDevice& device) {
           return absl::StartsWith(device.name, "emulated");
         });
}

// Of the weights that a long prompt streams, on a GPU.
double StreamBytes(const ModelShape& shape) {
  double most = 0;
  for (const LayerShape& layer : shape.layers) {
    const auto n_neurons = static_cast<double>(std::min(kMostStreamed, shape.config.d_ff));
    most = std::max(most, n_neurons * layer.gpu_neuron_bytes() + layer.gpu_plane_bytes);
  }
  return most;
}

// How neurons fire, by the profile; without one all alike, in the file's order.
FiringKnowledge FiringOf(const ModelShape& shape, const SparseSetup& setup) {
  if (setup.profile.has_value()) {
    return {FiringOfProfile(*setup.profile, shape), ProfileHash(*setup.profile)};
  }
  FiringCurve curve = DefaultCurve(shape);
  curve.hot_share = curve.hot_mass = 1;
  return {FiringOfCurve(shape, curve), ""};
}

}  // namespace

absl::StatusOr<Hardware> LocalHardware(const StartPlanOptions& options,
                                       const std::vector<NumaNode>& nodes,
                                       const std::vector<int64_t>& node_bytes) {
  const auto n_nodes = static_cast<int64_t>(nodes.size());
  int64_t n_cpus = 0;
  for (const NumaNode& node : nodes) n_cpus += static_cast<int64_t>(node.cpus.size());
  const int64_t n_workers = options.n_workers > 0 ? options.n_workers : n_nodes;
  // A GPU's worker waits for it and wakes others, for which it wants a CPU of its own.
  const auto n_gpus = static_cast<int64_t>(options.gpus.size());
  const int64_t n_threads =
      options.n_threads > 0 ? options.n_threads : std::max(n_cpus - n_gpus, n_workers);
  if (n_workers > kMaxRanks) {
    return absl::InvalidArgumentError(
        fmt::format("{} workers are more than the {} possible", n_workers, kMaxRanks));
  }
  if (n_threads < n_workers) {
    return absl::InvalidArgumentError(
        fmt::format("{} threads for {} workers: each needs one (--threads is the total)", n_threads,
                    n_workers));
  }
  Hardware hardware;
  hardware.ranks.resize(n_workers);
  const auto node_of = [&](int64_t i) -> const NumaNode& { return nodes[i % n_nodes]; };
  // The next thread goes to the worker that has the fewest for its node's CPUs.
  const auto load = [&](int64_t i) {
    return static_cast<double>(hardware.ranks[i].n_threads) /
           static_cast<double>(node_of(i).cpus.size());
  };
  for (int64_t left = n_threads - n_workers; left > 0; --left) {
    int64_t least = 0;
    for (int64_t i = 1; i < n_workers; ++i) {
      if (load(i) < load(least)) least = i;
    }
    ++hardware.ranks[least].n_threads;
  }
  for (int64_t i = 0; i < n_workers; ++i) {
    HardwareRank& rank = hardware.ranks[i];
    int64_t on_node = 0;
    for (int64_t j = i % n_nodes; j < n_workers; j += n_nodes) {
      on_node += hardware.ranks[j].n_threads;
    }
    rank.name = "cpu";
    rank.node = n_nodes > 1 ? node_of(i).id : -1;
    rank.memory_bytes = kUsableShare * static_cast<double>(node_bytes[i % n_nodes]) *
                        rank.n_threads / static_cast<double>(on_node);
    rank.gbps = rank.n_threads * options.cpu_thread_gbps;
    rank.gmacs = rank.n_threads * options.cpu_thread_gmacs;
    rank.pack_gbps = rank.n_threads * options.cpu_thread_pack_gbps;
  }
  std::vector<HardwareRank> gpus;
  for (const GpuDevice& device : options.gpus) {
    HardwareRank rank;
    rank.kind = RankKind::kGpu;
    rank.name = device.name;
    rank.memory_bytes = std::max(static_cast<double>(device.free_bytes) - kGpuMargin, 0.0);
    rank.gbps = device.gbps;
    rank.link_gbps = kLinkGbps;
    rank.handover_us = kHandoverUs;
    gpus.push_back(rank);
  }
  hardware.ranks.insert(hardware.ranks.begin(), gpus.begin(), gpus.end());
  return hardware;
}

namespace {

// Ranks without anything to hold would only make others wait.
void DropIdleRanks(Plan* plan) {
  for (int32_t r = plan->n_ranks() - 1; r >= 0; --r) {
    const bool is_idle =
        plan->vocab[r].size() == 0 &&
        std::all_of(plan->layers.begin(), plan->layers.end(), [r](const LayerPlan& layer) {
          const bool has_tail = !layer.tail_heads.empty() && layer.tail_heads[r].size() > 0;
          return layer.kv_heads[r].size() == 0 && layer.neurons[r].empty() && layer.decider != r &&
                 !has_tail;
        });
    if (!is_idle) continue;
    plan->ranks.erase(plan->ranks.begin() + r);
    plan->vocab.erase(plan->vocab.begin() + r);
    for (LayerPlan& layer : plan->layers) {
      layer.kv_heads.erase(layer.kv_heads.begin() + r);
      layer.neurons.erase(layer.neurons.begin() + r);
      if (!layer.tail_heads.empty()) layer.tail_heads.erase(layer.tail_heads.begin() + r);
      if (!layer.predicted_us.empty()) {
        layer.predicted_us.erase(layer.predicted_us.begin() + r);
      }
      if (layer.decider > r) --layer.decider;
    }
  }
}

}  // namespace

absl::StatusOr<Plan> PlanForStart(const StartPlanOptions& options, const SparsityOptions& sparsity,
                                  const ModelHeader& model, const SparseSetup& setup) {
  const std::vector<NumaNode> nodes = UsableNodes();
  StartPlanOptions measured = options;
  if (!options.gpus.empty()) {
    ASSIGN_OR_RETURN(const Hardware cpus, MeasureHardware(options.n_threads));
    HardwareRank all;
    all.n_threads = 0;
    for (const HardwareRank& rank : cpus.ranks) {
      all.gbps += rank.gbps;
      all.gmacs += rank.gmacs;
      all.pack_gbps += rank.pack_gbps;
      all.n_threads += rank.n_threads;
    }
    measured.cpu_thread_gbps = all.gbps / all.n_threads;
    measured.cpu_thread_gmacs = all.gmacs / all.n_threads;
    measured.cpu_thread_pack_gbps = all.pack_gbps / all.n_threads;
  }
  ASSIGN_OR_RETURN(const Hardware hardware,
                   LocalHardware(measured, nodes, AvailableBytesOfNodes(nodes)));
  ASSIGN_OR_RETURN(ModelShape shape, ShapeOfModel(model, setup));
  shape.gpu_kv_share = options.gpu_kv_share;
  ASSIGN_OR_RETURN(const ModeChoices modes, ModesOfLayers(sparsity, model, shape, setup));
  PlacementRequest request;
  request.n_ctx = request.n_kv_tokens = options.n_kv_tokens;
  request.n_session_ctx = options.n_ctx;
  request.shares_memory = options.shares_memory;
  request.cpu_workspace_bytes = kProgramBytes + StepBytes(options, model.config());
  request.gpu_workspace_bytes =
      GpuStepBytes(options, model.config()) + GraphBytes(options, model.config());
  if (MayStream(options)) request.gpu_workspace_bytes += StreamBytes(shape);
  request.vram_budget_bytes = options.vram_budget_bytes;
  if (!options.gpus.empty()) request.n_gpu_layers = options.n_gpu_layers;
  const FiringKnowledge firing =
      FiringOf(shape, options.splits_ffn || options.gpus.empty() ? setup : SparseSetup{});
  ASSIGN_OR_RETURN(PlannedFleet fleet, PlanHotCold(shape, hardware, firing, modes, request));
  for (size_t i = 0; i < options.gpus.size(); ++i) {
    fleet.plan.ranks[i].device = options.gpus[i].name;
  }
  const StreamChoice streaming = ChooseStreaming(shape, hardware, fleet, options.batch_size);
  Plan plan = std::move(fleet.plan);
  plan.model_hash = model.file().ContentHash();
  if (options.gpus.empty()) {
    plan.predicted_us = 0;
    for (LayerPlan& layer : plan.layers) layer.predicted_us.clear();
  }
  for (size_t i = options.gpus.size(); i < plan.ranks.size(); ++i) {
    plan.ranks[i].memory_bytes = 0;  // nothing is promised
  }
  DropIdleRanks(&plan);
  if (plan.ranks[0].kind == RankKind::kGpu) plan.stream_tokens = streaming.tokens;
  const Profile* profile = setup.profile.has_value() ? &*setup.profile : nullptr;
  RETURN_IF_ERROR(CheckPlan(plan, model.config(), plan.model_hash, profile));
  return plan;
}

}  // namespace thermocline
