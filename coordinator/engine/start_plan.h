// The plan of a start without --plan: who holds what on this host, as the planner decides.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/util/topology.h"
#include "coordinator/engine/gpu_devices.h"
#include "coordinator/engine/sparse_setup.h"
#include "solver/placement/hardware.h"
#include "solver/placement/hot_cold.h"

namespace thermocline {

struct StartPlanOptions {
  int64_t n_workers = 0;      // 0: one per NUMA node
  int64_t n_threads = 0;      // of all CPU workers; 0: the CPUs that this process may use, but for
                              // one a GPU
  int64_t n_ctx = 1;          // positions of a session
  int64_t n_kv_tokens = 0;    // of KV cache in f16 that there must be memory for
  double gpu_kv_share = 1;    // that a GPU's KV cache takes of what it would in f16
  bool shares_memory = true;  // as PlacementRequest has it
  int64_t batch_size = 1;     // of a step, at most
  int64_t max_logit_rows = 1;
  bool is_traced = false;              // steps are
  std::vector<GpuDevice> gpus;         // one rank each, before the CPUs'
  int64_t n_gpu_layers = kAutoLayers;  // on GPUs as a whole, where there are GPUs
  double vram_budget_bytes = 0;        // of each; 0: what is free, less a margin
  bool splits_ffn = true;              // false: layers lie on one kind of rank
  double cpu_thread_gbps = 1;          // of reading memory; without GPUs only shares count
  double cpu_thread_gmacs = 0, cpu_thread_pack_gbps = 0;  // HardwareRank's, of a thread
};

// With GPUs: whole layers, attention and hot neurons as the planner finds it fastest; what CPUs
// read is measured for it. Ranks that would hold nothing are left out.
// Workers go to the NUMA nodes in turn, threads to them as their nodes' CPUs are, at least one
// each; a rank's share of the work is its share of the threads, its memory that of its node.
// Without GPUs nothing is measured, and the plan predicts no times. InvalidArgument: more workers
// than threads. ResourceExhausted: the model does not fit, with the numbers and the remedy.
absl::StatusOr<Plan> PlanForStart(const StartPlanOptions& options, const SparsityOptions& sparsity,
                                  const ModelHeader& model, const SparseSetup& setup);

// The ranks of a host with these nodes and so much memory of each.
absl::StatusOr<Hardware> LocalHardware(const StartPlanOptions& options,
                                       const std::vector<NumaNode>& nodes,
                                       const std::vector<int64_t>& node_bytes);

}  // namespace thermocline
