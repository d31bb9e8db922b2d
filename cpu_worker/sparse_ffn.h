// The feed-forward part of a layer of which neurons are left out: chooses neurons, computes gate,
// up and down for these alone. No norm, no exchange (forward.h).
//
// Neurons that no token of the step needs are not read. What a token gets is the same as if it were
// alone in the step: a neuron that only others chose adds nothing to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "common/exchange/exchange.h"
#include "common/worker/ffn_counts.h"
#include "cpu_worker/activations.h"
#include "cpu_worker/shard.h"
#include "cpu_worker/step_clock.h"
#include "cpu_worker/team.h"
#include "kernels/ops.h"

namespace thermocline {

class SparseFfn {
 public:
  struct Options {
    bool f32_activations = false;
    bool measures_recall = false;  // gates of all neurons are computed, to see what is missed
    int64_t max_tokens = 1;
  };
  // All must outlive the object. Allocates for the largest sparse layer of the shard.
  SparseFfn(const Shard* shard, const kernels::Ops* ops, Team* team, StepClock* clock,
            const Options& options);

  // What a step brings to a layer, for each thread (with one token every thread has its own).
  struct Input {
    const Activations* normed;    // [n_tokens, d_model]
    const Activations* residual;  // [n_tokens, d_model]; where a predictor reads it
    const StepToken* tokens;      // [n_tokens]
    int64_t n_tokens;
    uint32_t* fired;       // [n_neurons], where firings are counted, or null (capture.h)
    ChoiceMemory choices;  // where another rank chooses
  };
  // Called by every thread of the team. out [n_tokens, d_model] is this rank's partial sum; each
  // thread writes its own columns, no barrier after it. `exchange` is told that the rank works.
  void Run(int32_t thread, int64_t layer, const Input& input, Exchange* exchange, float* out);

  // By one thread between two layers: adds what all threads have counted.
  void CollectCounts();
  // As of the last CollectCounts.
  const std::vector<FfnCounts>& counts() const { return counts_; }  // [n_layers]

 private:
  // A token's active neurons in one thread's part.
  struct Active {
    std::vector<int32_t> rows;
    std::vector<float> a;                      // of each row, for matrices without planes
    std::vector<int8_t> q;                     // of each row, for matrices with planes
    std::vector<kernels::ActiveBlock> blocks;  // these
    void Clear();
  };
  struct Private {
    Activations hidden;             // [1, rank], with one token
    std::vector<Active> active;     // [max_tokens]
    FfnCounts counts;               // of the layer being computed
    std::vector<FfnCounts> layers;  // [n_layers], since CollectCounts
    int64_t n_chosen = 0;           // rows that it has put on the list
  };
  // A thread's part of the list, and where it may write: from `at` on, whole 16s.
  struct Part {
    const int32_t* rows;
    int64_t n;
    int64_t at;
  };

  bool Selects(const SparseWeights& weights, const Input& input) const;
  bool ChoosesFor(const SparseWeights& weights, const StepToken& token) const;
  bool Fires(const SparseWeights& weights, const StepToken& token, float gate) const;
  // Scores of the thread's own rows into up_, then which tokens want which, and the common list.
  void Choose(int32_t thread, const SparseWeights& weights, const Input& input);
  void Predict(int32_t thread, const SparseWeights& weights, const Input& input);
  void ListChosen(int32_t thread, const SparseWeights& weights, const Input& input);
  void Select(const SparseWeights& weights, const Input& input, int64_t token, int64_t begin,
              int64_t end);
  Part PartOfList(int32_t thread, const SparseWeights& weights) const;
  // Gates of the part; then the rows that fired, with their gates, to the front of it. Their
  // number.
  int64_t Gate(int32_t thread, const SparseWeights& weights, const Input& input, const Part& part,
               Exchange* exchange);
  int64_t KeepFired(int32_t thread, const SparseWeights& weights, const Input& input,
                    const Part& part);
  void Up(const SparseWeights& weights, const Input& input, int64_t at, int64_t n,
          Exchange* exchange, int32_t thread);
  void ListActive(int32_t thread, const SparseWeights& weights, const Input& input, int64_t at,
                  int64_t n);
  void AddBlocks(const SparseWeights& weights, bool keeps_zeros, const int32_t* rows,
                 const float* values, int64_t n, Active* active) const;
  void Down(int32_t thread, const SparseWeights& weights, const Input& input, Exchange* exchange,
            float* out);
  void RowProduct(const kernels::RowMatrix& matrix, const int32_t* rows, int64_t n,
                  const Input& input, float* out) const;
  static int64_t RowsAtOnce(int64_t n_cols, int64_t n_tokens);

  const Shard* shard_;
  const kernels::Ops* ops_;
  Team* team_;
  StepClock* clock_;
  const Options options_;
  int64_t stride_ = 0;             // of the next buffers: neurons, and room for every thread's 16s
  std::vector<float> gate_, up_;   // [max_tokens, stride]
  std::vector<float> act_;         // [max_tokens, stride]
  std::vector<uint8_t> selected_;  // [max_tokens, stride], by row
  std::vector<int32_t> chosen_;    // [stride], rows
  std::vector<int32_t> fired_;     // [stride], rows
  std::vector<uint8_t> any_;       // [stride]: what any token chose, then what fired for any
  const int32_t* list_ = nullptr;  // chosen_, or all rows
  int64_t n_list_ = 0;
  Activations hidden_;             // [max_tokens, rank]
  std::vector<Private> private_;   // [n_threads]
  std::vector<FfnCounts> counts_;  // [n_layers]
};

}  // namespace thermocline
