// A fleet: runs steps on its workers, watches them, shuts them down. How it is started is
// fleet_starter.h. Knows tokens as numbers; text and requests are inference.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/exchange/step_driver.h"
#include "common/plan/plan.h"
#include "common/util/trace.h"
#include "coordinator/engine/fleet_totals.h"
#include "coordinator/engine/model_header.h"
#include "coordinator/engine/sparse_setup.h"
#include "coordinator/engine/stepper.h"
#include "coordinator/engine/worker_process.h"
#include "proto/worker.pb.h"
#include "solver/placement/hot_cold.h"

namespace thermocline {

class WorkerHandle;

struct FleetOptions {
  std::string model_path;
  std::string hidden_activation;   // "": as the file says
  std::string plan_path;           // "": made at the start
  std::string isa = "auto";        // auto, reference, avx2, avx512
  std::string transport = "auto";  // auto, shm, grpc; auto: shm for spawned workers
  SparsityOptions sparsity;
  bool f32_activations = false;
  std::string kv_type = "f16";  // f16, f32 (CPU ranks only), q8_0 (GPU ranks only)
  int64_t n_workers = 0;        // 0: one per NUMA node
  int64_t n_threads = 0;        // of all local workers; 0: the CPUs this process may use
  int64_t n_ctx = 0;            // 0: the model's own
  int64_t n_slots = 1;
  int64_t batch_size = 512;               // tokens of a step, at most
  int64_t max_logit_rows = 1;             // of a step
  int64_t stall_timeout_ms = 10000;       // without progress, a step is given up
  int64_t load_timeout_ms = 60000;        // without progress of one worker, loading is
  std::string worker_binary;              // "": cpu_worker beside this program
  std::string gpu_worker_binary;          // "": gpu_worker beside this program
  std::string gpu_device = "none";        // auto, none, or names with commas (gpu_devices.h)
  int64_t n_gpu_layers = kAutoLayers;     // whole layers on GPUs (hot_cold.h)
  double vram_budget_bytes = 0;           // of each GPU; 0: what is free, less a margin
  bool splits_ffn = true;                 // between GPUs and CPUs, by a profile
  std::string tls_ca, tls_cert, tls_key;  // for workers on other hosts
  std::string trace_path;                 // a file for the last steps' spans; "": none
  // Told at the fleet's end whether that file was written, if steps were traced; may be null.
  std::function<void(const absl::Status&)> on_trace;
};

class Fleet : public Stepper {
 public:
  // bytes_done, bytes_total over all workers; called from one thread.
  using OnProgress = std::function<void(int64_t, int64_t)>;

  // Returns when all shards are loaded and the exchange stands. Errors name the worker or file.
  // `cancelled` (may be null) is looked at all the time: Cancelled then.
  static absl::StatusOr<std::unique_ptr<Fleet>> Start(const FleetOptions& options,
                                                      const OnProgress& on_progress,
                                                      const std::atomic<bool>* cancelled);
  // Writes the trace, ends the workers that it spawned and waits for them.
  ~Fleet() override;

  const ModelHeader& model() const { return *model_; }
  const Plan& plan() const { return plan_; }
  const Tokenizer& tokenizer() const override { return model_->tokenizer(); }
  v1::Model Describe() const override;
  absl::StatusOr<v1::StatsResponse> DescribeRanks() override;
  int64_t n_ctx() const override { return n_ctx_; }
  int64_t batch_size() const override { return options_.batch_size; }
  int64_t max_logit_rows() const { return options_.max_logit_rows; }
  const std::string& isa() const { return isa_; }  // the level the workers chose
  int64_t n_threads() const;                       // compute threads of CPU ranks
  // What GPU ranks compute on, "cuda:0 (NVIDIA H100 80GB HBM3)", in the order of their ranks.
  const std::vector<std::string>& devices() const { return devices_; }
  // Why there is no GPU (or no further one) to use; "" where none was looked for.
  const std::string& no_gpu_reason() const { return no_gpu_reason_; }
  std::string transport() const;  // "shm", "grpc", or "grpc+shm" for both

  // At most max_logit_rows of the tokens want logits.
  absl::Status Run(absl::Span<const TokenInput> tokens) override;
  const float* logits(int32_t row) const override;
  int32_t best(int32_t row) const override;
  absl::Status state() const override;
  // Asks every worker. Works while no step runs.
  absl::StatusOr<std::vector<worker::v1::StatsResponse>> Stats();
  absl::StatusOr<FleetTotals> Totals();  // of these
  // Plain read bandwidth of all CPU workers' threads at once, over a buffer of this size that is
  // split by threads; the best of the repeats, 1e9 bytes a second. 0 without a CPU worker.
  absl::StatusOr<double> MeasureReadGbps(int64_t buffer_bytes, int32_t repeats);

  // From now on workers count firings, in all layers, and keep FFN inputs of some layers: of
  // n_samples tokens spread evenly over the n_tokens that will be run. ResourceExhausted, with the
  // numbers, when a worker has no memory for it; FailedPrecondition under a plan that orders
  // neurons by a profile.
  absl::Status StartCapture(absl::Span<const int32_t> layers, int64_t n_tokens, int64_t n_samples);
  struct CapturedLayer {
    int64_t n_tokens = 0;         // run since the start
    std::vector<uint32_t> fired;  // [d_ff], tokens for which each neuron fired; empty without ReLU
    std::vector<float> samples;   // [n_samples, d_model], inputs of the FFN after its norm
  };
  absl::StatusOr<CapturedLayer> ReadCapture(int32_t layer);

 private:
  Fleet() = default;
  // Keeps the first reason and stops the segment: nothing runs after it.
  void GiveUp(const absl::Status& reason);
  // What a failed step is reported as: the worker that was lost, if one was.
  absl::Status ExplainFailure(const absl::Status& step_status);
  void OnWorkerEnd(int32_t rank);
  int32_t SampledBy(int32_t layer) const;  // a rank
  // Gives up when the connection to a worker on an address is gone; its process can't be watched.
  void LookAtConnections();
  absl::Status SaveTrace();
  // Calls all workers at the same time, each from a thread of its own.
  void OnAllWorkers(const std::function<void(size_t index)>& call);
  // A call to a worker failed for good: returns the reason, which may be that its process ended.
  absl::Status LostWorker(int32_t rank, const absl::Status& status);

  FleetOptions options_;
  std::unique_ptr<ModelHeader> model_;
  Plan plan_;
  int64_t n_ctx_ = 0;
  std::string isa_;
  std::vector<std::string> devices_;
  std::string no_gpu_reason_;
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<StepDriver> driver_;
  std::vector<std::unique_ptr<WorkerHandle>> workers_;  // [n_ranks]
  std::vector<StepToken> step_tokens_;                  // of the step being posted
  bool has_best_only_ = false;                          // of the last step: no rows of logits
  std::unique_ptr<TraceRecorder> trace_;                // null: steps are not traced
  mutable std::mutex mutex_;
  absl::Status failure_;                    // guarded by mutex_
  bool is_standing_ = false;                // guarded by mutex_; the exchange is connected
  bool is_ending_ = false;                  // guarded by mutex_
  std::unique_ptr<Supervisor> supervisor_;  // after what its callback uses
  friend class FleetStarter;
};

}  // namespace thermocline
