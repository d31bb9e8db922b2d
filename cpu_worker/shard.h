// A rank's weights: read from the GGUF by a plan, packed for the kernels, in memory of this
// process. What is computed with them is forward.h and sparse_ffn.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/predictor.h"
#include "common/model/sparsity.h"
#include "common/model/tensor_table.h"
#include "common/plan/plan.h"
#include "common/worker/shard_spec.h"
#include "cpu_worker/arena.h"
#include "cpu_worker/team.h"
#include "kernels/neurons.h"
#include "kernels/packed.h"
#include "kernels/rows.h"

namespace thermocline {

// The feed-forward weights of a layer of which single neurons can be left out. Row i everywhere is
// the i-th of this rank's neurons, in file order.
struct SparseWeights {
  Sparsity mode = Sparsity::kExact;
  float threshold = 0;
  kernels::RowMatrix gate, up;  // [n_neurons, d_model]
  kernels::RowMatrix sketch;   // mode sketch: the one whose lead is read; gate itself if it has one
  kernels::NeuronMatrix down;  // [n_neurons, d_model]
  // Where a row is among the quantization blocks of ffn_down that this rank has a part of: 32 times
  // the number of the block, plus the neuron's place in it.
  std::vector<int32_t> places;    // [n_neurons]
  std::vector<int32_t> all_rows;  // 0, 1, ..., n_neurons - 1
  // Mode predict, if this rank chooses: [rank, d_model], [n_neurons, rank].
  kernels::PackedMatrix fc1, fc2;
  const float* fc2_bias = nullptr;  // [n_neurons], or null
  // Mode predict, if another rank chooses: where rows are among Exchange::choices(), [n_neurons].
  std::vector<int32_t> choices;
  bool predictor_has_relu = false;
  bool predictor_reads_residual = false;
};

struct LayerWeights {
  Range kv_heads;
  Range tail_heads;  // other ranks'; kv_heads are empty then
  int64_t n_neurons = 0;
  const float* attention_norm = nullptr;  // [d_model]
  const float* ffn_norm = nullptr;        // [d_model]
  kernels::PackedMatrix q;                // [n_local_heads * d_head, d_model]
  kernels::PackedMatrix k, v;             // [n_local_kv_heads * d_head, d_model]
  kernels::PackedMatrix o;                // [d_model, n_local_heads * d_head]
  // The FFN: these three, or `sparse`.
  kernels::PackedMatrix gate, up;  // [n_neurons, d_model]
  // [d_model, neurons of one range], one for each range of the plan: their products are added in
  // this order, which the plan fixes.
  std::vector<kernels::PackedMatrix> down;
  std::unique_ptr<SparseWeights> sparse;
};

class Shard {
 public:
  // Lays the shard out; no weights are read yet. predictor: needed by mode predict, else null. The
  // files must outlive the loading.
  static absl::StatusOr<std::unique_ptr<Shard>> Create(const GgufFile* file,
                                                       const ModelConfig& config,
                                                       const ShardSpec& spec,
                                                       const GgufFile* predictor_file = nullptr,
                                                       const Predictor* predictor = nullptr);

  // Reads and packs everything on all threads; each writes what it will compute with, as far as
  // that is fixed. on_progress(bytes done, bytes in all) is called by the leader; false ends the
  // loading (Cancelled).
  absl::Status Load(Team& team, const std::function<bool(int64_t, int64_t)>& on_progress);

  const ModelConfig& config() const { return config_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  Range vocab() const { return vocab_; }
  const kernels::PackedMatrix& output() const { return output_; }  // [vocab rows, d_model]
  const float* output_norm() const { return output_norm_; }        // [d_model]
  const float* rope_factors() const { return rope_factors_; }      // [n_rot / 2], or null

  const Arena& arena() const { return *arena_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // packed and padded, in all
  // What every token must read, counted as in the file: all but the FFN weights of layers that skip
  // neurons.
  int64_t token_bytes() const { return token_bytes_; }

 private:
  // Something to be packed, in units that threads share out.
  struct Job {
    const GgufFile* file;
    const GgufTensor* tensor;
    int64_t n_bytes;  // in the arena
    int64_t n_units;
    int64_t granule;  // of units that a thread takes
    std::function<void(uint8_t*)> place;
    std::function<void(int64_t, int64_t)> pack;  // units [begin, end)
  };

  Shard() = default;
  absl::Status PlanLayer(int64_t index, const ShardSpec::Layer& spec, bool f32_activations);
  void PlanDenseFfn(int64_t index, const ShardSpec::Layer& spec);
  absl::Status PlanSparseFfn(int64_t index, const ShardSpec::Layer& spec, bool f32_activations);
  absl::Status PlanPredictor(int64_t index, const ShardSpec::Layer& spec, SparseWeights* weights);
  void PlanDown(int64_t index, const ShardSpec::Layer& spec, bool f32_activations,
                SparseWeights* weights);
  const GgufTensor* Tensor(Role role, int64_t layer) const;
  void AddMatrix(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& rows,
                 Range cols, kernels::PackedMatrix* matrix);
  void AddMatrix(Role role, int64_t layer, const std::vector<Range>& rows, Range cols,
                 kernels::PackedMatrix* matrix);
  void AddRows(const GgufTensor* tensor, const std::vector<Range>& rows, int lead_bits, bool as_f32,
               kernels::RowMatrix* matrix);
  void AddSketch(const GgufTensor* tensor, const std::vector<Range>& rows, int lead_bits,
                 kernels::RowMatrix* matrix);
  void AddVector(const GgufFile* file, const GgufTensor* tensor, const std::vector<Range>& elements,
                 const float** vector);

  const GgufFile* file_ = nullptr;
  const GgufFile* predictor_file_ = nullptr;
  const Predictor* predictor_ = nullptr;
  ModelConfig config_;
  std::vector<LayerWeights> layers_;
  Range vocab_;
  kernels::PackedMatrix output_;
  const float* output_norm_ = nullptr;
  const float* rope_factors_ = nullptr;
  std::vector<Job> jobs_;
  std::unique_ptr<Arena> arena_;
  int64_t weight_bytes_ = 0, token_bytes_ = 0;
};

// Groups of a matrix that a thread owns: whole pairs of groups (32 rows), so that a thread's
// neurons are whole quantization blocks of the next product's input.
inline Team::Part GroupsOf(const Team& team, const kernels::PackedMatrix& matrix, int32_t thread) {
  const Team::Part pairs = team.PartOf((matrix.n_groups() + 1) / 2, thread);
  const int64_t n_groups = matrix.n_groups();
  return {std::min(2 * pairs.begin, n_groups), std::min(2 * pairs.end, n_groups)};
}

}  // namespace thermocline
