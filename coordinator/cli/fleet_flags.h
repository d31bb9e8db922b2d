// The flags by which a user describes a fleet, the same in main, coordinator, bench and perplexity.
// What a program does with the fleet has flags of its own.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/util/flags.h"
#include "coordinator/engine/fleet.h"

namespace thermocline {

struct FleetFlags {
  FleetOptions options;
  std::string activations = "int8";
  int64_t sketch_bits = 0;
  int64_t worker_timeout_s = 10;
  double vram_budget_gib = -1;   // of each GPU; -1: what is free, less a margin
  bool reset_gpu_index = false;  // a plan is only kept where --plan names it
  bool mmap = false;             // shards are never used from the mapping
  bool memory_f32 = false;       // PowerInfer's spelling of kv_type f32
  bool quiet = false;
  bool verbose = false;

  // Brings the choices into `options`. InvalidArgument without a model, and for what a plan says
  // already. `flags`: as parsed, with placement flags (AddPlacementFlags or bench's lists).
  absl::Status Finish(const FlagSet& flags);
};

// All but placement.
void AddFleetFlags(FlagSet* flags, FleetFlags* values);
// Threads, workers, transport, ISA: one value each (bench takes lists instead).
void AddPlacementFlags(FlagSet* flags, FleetOptions* options);

inline constexpr int64_t kMaxThreads = 4096;  // of --threads

}  // namespace thermocline
