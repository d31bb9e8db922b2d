// The plan: who holds which shard of one model, by which mode each layer is computed, and what that
// is predicted to cost. Plain data, its JSON form, and the check that it is complete. Who should
// hold what is decided in solver/placement.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "common/model/profile.h"
#include "common/model/sparsity.h"

namespace thermocline {

struct Range {  // half-open
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

enum class RankKind : uint8_t { kCpu, kGpu };
const char* RankKindName(RankKind kind);  // "cpu", "gpu"

struct RankPlan {
  int32_t node = -1;  // NUMA node on its host, -1: wherever the worker is started
  int32_t n_threads = 1;
  std::string address = {};  // "host:port" of a worker that runs already; "": spawned on this host
  RankKind kind = RankKind::kCpu;
  int64_t memory_bytes = 0;  // that the rank may allocate; 0: nothing was promised
  std::string device = {};   // of kind gpu: "cuda:N" or "emulated"; "": chosen at the start
  bool operator==(const RankPlan&) const = default;
};

struct LayerPlan {
  std::vector<Range> kv_heads;  // [n_ranks]; with their query heads; may be empty
  // [n_ranks], ascending. Numbers count in the profile's order, hottest first, when the plan has a
  // profile_hash, and may be cut anywhere; else in file order, cut at multiples of 32.
  std::vector<std::vector<Range>> neurons;
  Sparsity mode = Sparsity::kOff;
  int32_t sketch_bits = 0;  // 1..3 in mode sketch, else 0
  // [n_ranks], in plans with a gpu_ctx; else empty. KV heads that GPU ranks hold, of which a CPU
  // rank without heads of its own in this layer has the K and V of all positions from gpu_ctx on.
  std::vector<Range> tail_heads = {};
  // In mode predict: the GPU rank with all heads of the layer that predicts for CPU ranks, too; -1:
  // each rank for its own neurons.
  int32_t decider = -1;
  std::vector<double> predicted_us;  // [n_ranks] of this layer in decode; empty: not predicted
  bool operator==(const LayerPlan&) const = default;
};

struct Plan {
  std::string model_hash;
  std::string profile_hash;  // ProfileHash of the profile whose order neurons count in, or ""
  std::vector<RankPlan> ranks;
  std::vector<LayerPlan> layers;  // [n_layers]
  // Of a longer context, GPU ranks hold K and V of so many positions, CPU ranks those of the tail;
  // 0: K and V of all positions lie with their heads.
  int64_t gpu_ctx = 0;
  std::vector<Range> vocab;  // [n_ranks], rows of the output matrix; may be empty
  double predicted_us = 0;   // one decode step; 0: not predicted
  // Steps of so many tokens or more have the neurons of CPU ranks computed by GPU ranks, which read
  // them from the file (streamed_neurons.h); 0: none have.
  int64_t stream_tokens = 0;

  int32_t n_ranks() const { return static_cast<int32_t>(ranks.size()); }
  bool operator==(const Plan&) const = default;
};

inline constexpr int64_t kNeuronUnit = 32;  // FFN columns are cut at quantization blocks
inline constexpr int32_t kMaxRanks = 256;
inline constexpr int64_t kMinStreamTokens = 48;  // below, GPUs do not multiply by GEMM

// SHA-256 over all that a profile's order depends on: the model's and the text's hash and the
// counts. 64 hex digits.
std::string ProfileHash(const Profile& profile);

// InvalidArgument with the reason when the plan is not one for this model: other hash, a head,
// neuron, tail or vocabulary row missing or doubled, a cut that the layout does not allow, no
// ranks, a mode that can't be. profile: what plan.profile_hash must be of; may be null for a plan
// without.
absl::Status CheckPlan(const Plan& plan, const ModelConfig& config, const std::string& model_hash,
                       const Profile* profile = nullptr);

// A rank's neurons as the file numbers them: ascending ranges, as long as they can be. order:
// HottestFirst of the layer's profile [d_ff], or empty when the plan has no profile. For a plan
// that CheckPlan has passed.
std::vector<Range> FileNeurons(const LayerPlan& layer, int32_t rank,
                               const std::vector<int32_t>& order);

// JSON, one entry for each run of equal layers, so that people can read and edit it (README.md,
// "Plans"). Parsing errors name the key.
std::string PlanToJson(const Plan& plan);
absl::StatusOr<Plan> PlanFromJson(const std::string& text);
absl::StatusOr<Plan> ReadPlan(const std::string& path);
// Written under a temporary name and renamed.
absl::Status WritePlan(const Plan& plan, const std::string& path);

}  // namespace thermocline
