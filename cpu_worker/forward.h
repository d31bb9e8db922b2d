// One step over a shard: the layers' computation, on a team of threads, between the exchanges.
// Knows nothing of gRPC, files or sessions.
//
// Decode (one token) and prefill (many) are the same code; they differ in who prepares the inputs
// of a product. With one token every thread adds up, normalizes and quantizes the whole vector for
// itself, which is cheaper than meeting; with several, each thread does its tokens and all meet.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/exchange.h"
#include "cpu_worker/activations.h"
#include "cpu_worker/capture.h"
#include "cpu_worker/kv_cache.h"
#include "cpu_worker/shard.h"
#include "cpu_worker/sparse_ffn.h"
#include "cpu_worker/step_clock.h"
#include "cpu_worker/team.h"
#include "kernels/ops.h"

namespace thermocline {

class Forward {
 public:
  struct Options {
    bool f32_activations = false;
    bool measures_recall = false;  // sparse_ffn.h
    int64_t max_tokens = 1;
    int64_t max_logit_rows = 1;
    int64_t n_ctx = 1;
    int64_t tail_begin = 0;          // first position of tail_heads; 0: the context has no tail
    TraceRecorder* trace = nullptr;  // of its steps, or null
    int64_t stream_tokens = 0;       // as the plan has it
  };
  // All must outlive the object.
  Forward(const Shard* shard, KvCache* cache, const kernels::Ops* ops, Team* team,
          const Options& options);

  // Runs steps until the exchange ends: OK after a shutdown, else why it was given up.
  absl::Status Serve(Exchange& exchange);
  // What its steps did; as of the last step that ended. May be called from any thread.
  struct Totals {
    uint64_t steps = 0;
    std::vector<FfnCounts> ffn;  // [n_layers]; zeros in layers that leave nothing out
    StepClock::Times op_ns = {};
  };
  Totals totals() const;
  // From the next step on; null: no more. May be called from any thread.
  void SetCapture(std::shared_ptr<Capture> capture);

 private:
  // What each thread has for itself.
  struct Private {
    std::vector<float> h;              // [d_model], when there is one token
    Activations input;                 // one token
    Activations residual;              // one token, where a predictor reads it
    std::vector<float> partials;       // tiles of one head's attention
    std::vector<float> state;          // [2 + d_head]
    std::vector<LogitCandidate> best;  // [max_logit_rows], of this thread's part of the output
  };

  void RunStep(int32_t thread);
  void LoadInputs(int32_t thread);
  // The leader takes the next step; failed_ ends the service.
  void BeginStep();
  // Heads of a layer, and the positions of them that are in this rank's KV cache.
  struct Heads {
    int64_t layer;
    int64_t n_kv_heads;
    int64_t begin = 0;        // the first position; tokens before it attend to nothing here
    int64_t first_head = 0;   // number of the first query head in the model
    float* states = nullptr;  // TailMemory's, for what was attended to; null: attention_ gets it
  };
  void AttentionLayer(int32_t thread, int64_t layer);
  void TailLayer(int32_t thread, int64_t layer);
  void TakeTailInputs(int32_t thread, const Range& kv_heads);
  void RotateAndStore(int32_t thread, const Heads& heads);
  void Attend(int32_t thread, const Heads& heads);
  void AttendWholeHeads(int32_t thread, const Heads& heads);
  void AttendSharedContext(int32_t thread, const Heads& heads);
  void FinishHead(const Heads& heads, int64_t token, int64_t head, const std::vector<float>& state);
  // Where the context of one token is shared among threads, so few are its heads.
  bool SharesContext(int64_t n_kv_heads) const {
    return n_kv_heads * config_.group_size() < 2 * team_->size();
  }
  // Not where GPU ranks do.
  bool ComputesNeurons() const {
    return options_.stream_tokens == 0 || n_tokens_ < options_.stream_tokens;
  }
  void FfnLayer(int32_t thread, int64_t layer);
  void DenseFfn(int32_t thread, int64_t layer);
  void RunSparseFfn(int32_t thread, int64_t layer);
  void DownProduct(int32_t thread, const LayerWeights& weights, float* out);
  // Every rank's partials into h. After it, failed_ says whether the step goes on; so after Meet.
  void Combine(int32_t thread, bool has_partial);
  void Meet(int32_t thread);
  void Keep(absl::Status status) {
    status_ = std::move(status);
    failed_ = !status_.ok();
  }
  void OutputLogits(int32_t thread);
  // Of this thread's rows of the output, [begin, end); of all threads, by the leader.
  void LeaveLogits(int32_t thread, int64_t begin, int64_t end);
  void LeaveCandidates();

  bool one_token() const { return n_tokens_ == 1; }
  float* h(int32_t thread, int64_t token);
  Team::Part TokensOf(int32_t thread) const { return team_->PartOf(n_tokens_, thread); }
  // Norms h into the input of the next products, and meets when the input is shared.
  Activations& PrepareInput(int32_t thread, const float* norm);
  // The same for a vector that all threads have written together, such as attention's output.
  Activations& QuantizeShared(int32_t thread, Activations& shared);
  // out[t * out_stride + row] for the rows that the thread owns and t < n_inputs.
  void Product(int32_t thread, const kernels::PackedMatrix& weights, const Activations& input,
               int64_t column, int64_t n_inputs, float* out, int64_t out_stride);
  // Each thread keeps what it prepared of an FFN's input, if someone wants it.
  void TakeSamples(int32_t thread, int64_t layer, Activations& input);
  void FinishStep();
  bool WantsInt8(const kernels::PackedMatrix& weights) const;

  const Shard* shard_;
  KvCache* cache_;
  const kernels::Ops* ops_;
  Team* team_;
  const Options options_;
  const ModelConfig& config_;

  // The step being run; written by the leader between barriers.
  Exchange* exchange_ = nullptr;
  Step step_;
  std::vector<StepToken> tokens_;  // a copy: what was checked can't change any more
  int64_t n_tokens_ = 0;
  std::vector<int32_t> logit_tokens_;  // the tokens that want logits, in the order of their rows
  absl::Status status_;
  bool failed_ = false;  // what the other threads look at after a barrier
  StepClock clock_;      // the leader's
  mutable std::mutex totals_mutex_;
  Totals totals_;                          // guarded by totals_mutex_
  std::shared_ptr<Capture> next_capture_;  // guarded by totals_mutex_
  std::shared_ptr<Capture> capture_;       // of the step being run

  std::vector<double> inverse_frequency_;  // [n_rot / 2]
  std::vector<float> cos_, sin_;           // [max_tokens, n_rot / 2]
  std::vector<float> h_;                   // [max_tokens, d_model], when there are several tokens
  Activations input_;                      // [max_tokens, d_model]
  Activations attention_;                  // [max_tokens, q columns]
  Activations neurons_;                    // [max_tokens, neurons]
  int64_t q_stride_, kv_stride_, neuron_stride_, vocab_stride_;  // of the next buffers, padded
  std::vector<float> q_, k_, v_;                                 // [max_tokens, stride]
  std::vector<float> gate_, up_;                                 // [max_tokens, neuron_stride_]
  std::vector<float> down_;           // [max_tokens, d_model], second and later ranges
  std::vector<float> logits_;         // [max_logit_rows, vocab_stride_]
  std::vector<float> tile_partials_;  // [heads, tiles, 2 + d_head], decode over shared contexts
  std::vector<Private> private_;      // [n_threads]
  Activations residual_;              // [max_tokens, d_model], where a predictor reads it
  SparseFfn sparse_ffn_;
};

}  // namespace thermocline
