// The plan: who holds which shard of one model. Plain data, its JSON form, and the check that it is
// complete. Who should hold what is decided in solver/placement.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/config.h"

namespace thermocline {

struct Range {  // half-open
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

struct RankPlan {
  int32_t node = -1;  // NUMA node on its host, -1: wherever the worker is started
  int32_t n_threads = 1;
  std::string address;  // "host:port" of a worker that runs already; "": spawned on this host
  bool operator==(const RankPlan&) const = default;
};

struct LayerPlan {
  std::vector<Range> kv_heads;              // [n_ranks]; with their query heads; may be empty
  std::vector<std::vector<Range>> neurons;  // [n_ranks], ascending, multiples of 32
  bool operator==(const LayerPlan&) const = default;
};

struct Plan {
  std::string model_hash;
  std::vector<RankPlan> ranks;
  std::vector<LayerPlan> layers;  // [n_layers]
  std::vector<Range> vocab;       // [n_ranks], rows of the output matrix; may be empty

  int32_t n_ranks() const { return static_cast<int32_t>(ranks.size()); }
  bool operator==(const Plan&) const = default;
};

inline constexpr int64_t kNeuronUnit = 32;  // FFN columns are cut at quantization blocks
inline constexpr int32_t kMaxRanks = 256;

// InvalidArgument with the reason when the plan is not one for this model: other hash, a head,
// neuron or vocabulary row missing or doubled, a cut that the layout does not allow, no ranks.
absl::Status CheckPlan(const Plan& plan, const ModelConfig& config, const std::string& model_hash);

// JSON, one entry for each run of equal layers, so that people can read and edit it (README.md,
// "Plans"). Parsing errors name the key.
std::string PlanToJson(const Plan& plan);
absl::StatusOr<Plan> PlanFromJson(const std::string& text);
absl::StatusOr<Plan> ReadPlan(const std::string& path);
// Written under a temporary name and renamed.
absl::Status WritePlan(const Plan& plan, const std::string& path);

}  // namespace thermocline
