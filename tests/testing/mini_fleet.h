// A whole fleet in one process: every rank is a thread (with its team; of kind gpu on the emulated
// device) on one segment, without gRPC and without the coordinator's programs. For tests of the
// step and of the exchange under it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exchange/shm_exchange.h"
#include "common/exchange/step_driver.h"
#include "common/gguf/gguf_file.h"
#include "common/plan/plan.h"
#include "cpu_worker/forward.h"
#include "gpu_worker/device_forward.h"
#include "kernels/ops.h"

namespace thermocline::testing {

struct MiniFleetOptions {
  kernels::Isa isa = kernels::detect_isa();
  bool f32_activations = false;
  bool f32_kv = false;
  int64_t n_ctx = 1024;
  int64_t batch_size = 512;
  int64_t max_logit_rows = 512;
  uint32_t spin_us = 0;
  float threshold = 0;  // of layers that predict, sketch or compare magnitudes
  bool measures_recall = false;
  const Profile* profile = nullptr;  // of plans that have one
  // Of layers that predict; null: the model's own, and `threshold`.
  const GgufFile* predictor_file = nullptr;
  const Predictor* predictor = nullptr;
  kernels::DeviceKvType device_kv_type = kernels::DeviceKvType::kF16;
  EmulatedOptions device = {};  // of ranks of kind gpu
  TokenMode token_mode = TokenMode::kAsPlanned;
  std::vector<TokenMode> token_modes = {};  // of positions, over and over, instead; or empty
  bool rotates_logit_rows = false;  // a step's first token has the second row, the last the first
};

// A plan of n_ranks with these shares and this many threads a rank.
absl::StatusOr<Plan> MakePlan(const GgufFile& file, const std::vector<double>& shares,
                              int32_t n_threads);

class MiniFleet {
 public:
  static absl::StatusOr<std::unique_ptr<MiniFleet>> Create(const GgufFile* file, const Plan& plan,
                                                           const MiniFleetOptions& options);
  ~MiniFleet();

  // Runs tokens at positions n_past.. of slot 0, in steps of at most `step_tokens` tokens, and
  // returns the logits of all of them, [n_tokens, n_vocab].
  absl::StatusOr<std::vector<float>> Run(const std::vector<int32_t>& tokens, int64_t n_past,
                                         int64_t step_tokens);
  // The same of steps that want only the best: the token with the largest logit, [n_tokens].
  absl::StatusOr<std::vector<int32_t>> RunForBest(const std::vector<int32_t>& tokens,
                                                  int64_t n_past, int64_t step_tokens);
  // Stops all ranks; how each ended. A rank that failed has stopped the others by itself, as the
  // coordinator would.
  std::vector<absl::Status> Stop();
  const ModelConfig& config() const { return config_; }
  // Of all ranks and layers.
  FfnCounts Counts() const;
  Forward& forward(int32_t rank) { return *ranks_[rank]->forward; }
  const Device& device(int32_t rank) const { return *ranks_[rank]->device; }
  std::string step_form(int32_t rank) const {
    return ranks_[rank]->device_forward->totals().step_form;
  }
  Segment& segment() { return *segment_; }

 private:
  struct Rank {
    std::unique_ptr<Team> team;
    std::unique_ptr<Shard> shard;
    std::unique_ptr<KvCache> cache;
    std::unique_ptr<Forward> forward;
    std::unique_ptr<Device> device;  // of kind gpu: these three instead of the above
    std::unique_ptr<DeviceShard> device_shard;
    std::unique_ptr<DeviceForward> device_forward;
    std::unique_ptr<ShmExchange> exchange;
    std::thread thread;
    absl::Status end;
  };
  MiniFleet() = default;
  // on_token(row) in the order of the tokens.
  absl::Status RunSteps(const std::vector<int32_t>& tokens, int64_t n_past, int64_t step_tokens,
                        bool wants_best_only, const std::function<void(int32_t)>& on_token);
  absl::Status OpenPredictor(const Plan& plan);
  absl::Status MakeCpuRank(const RankPlan& plan, const ShardSpec& spec, Rank* rank);
  absl::Status MakeGpuRank(const ShardSpec& spec, Rank* rank);

  const GgufFile* file_ = nullptr;
  ModelConfig config_;
  MiniFleetOptions options_;
  Predictor predictor_;  // empty when no layer predicts
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<StepDriver> driver_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

// Of each row of n_vocab logits the token that greedy sampling takes.
std::vector<int32_t> BestOfRows(const std::vector<float>& logits, int64_t n_vocab);

// |a - b| / |b|, both taken as one vector.
double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace thermocline::testing
