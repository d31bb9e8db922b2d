// A rank's weights: read from the GGUF by a plan, packed for the kernels, in memory of this
// process. What is computed with them is forward.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/tensor_table.h"
#include "common/plan/plan.h"
#include "cpu_worker/arena.h"
#include "cpu_worker/team.h"
#include "kernels/packed.h"

namespace thermocline {

// What one rank holds.
struct ShardSpec {
  struct Layer {
    Range kv_heads;              // with their query heads
    std::vector<Range> neurons;  // ascending
  };
  std::vector<Layer> layers;  // [n_layers]
  Range vocab;
};

// The spec's part of a checked plan.
ShardSpec SpecOfRank(const Plan& plan, int32_t rank);
int64_t TotalSize(const std::vector<Range>& ranges);

struct LayerWeights {
  Range kv_heads;
  int64_t n_neurons = 0;
  const float* attention_norm = nullptr;  // [d_model]
  const float* ffn_norm = nullptr;        // [d_model]
  kernels::PackedMatrix q;                // [n_local_heads * d_head, d_model]
  kernels::PackedMatrix k, v;             // [n_local_kv_heads * d_head, d_model]
  kernels::PackedMatrix o;                // [d_model, n_local_heads * d_head]
  kernels::PackedMatrix gate, up;         // [n_neurons, d_model]
  // [d_model, neurons of one range], one for each range of the plan: their products are added in
  // this order, which the plan fixes.
  std::vector<kernels::PackedMatrix> down;
};

class Shard {
 public:
  // Lays the shard out; no weights are read yet. `file` must outlive the result.
  static absl::StatusOr<std::unique_ptr<Shard>> Create(const GgufFile* file,
                                                       const ModelConfig& config,
                                                       const ShardSpec& spec);

  // Reads and packs everything on all threads; each writes the groups that it will compute with.
  // on_progress(bytes done, bytes in all) is called by the leader; false ends the loading
  // (Cancelled).
  absl::Status Load(Team& team, const std::function<bool(int64_t, int64_t)>& on_progress);

  const ModelConfig& config() const { return config_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  Range vocab() const { return vocab_; }
  const kernels::PackedMatrix& output() const { return output_; }  // [vocab rows, d_model]
  const float* output_norm() const { return output_norm_; }        // [d_model]
  const float* rope_factors() const { return rope_factors_; }      // [n_rot / 2], or null

  const Arena& arena() const { return *arena_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // packed and padded, in all
  // What a dense token must read, counted as in the file.
  int64_t token_bytes() const { return token_bytes_; }

 private:
  // One matrix to be packed: rows [row_ranges] and columns [cols] of a tensor.
  struct Job {
    const GgufTensor* tensor;
    std::vector<Range> rows;
    Range cols;
    kernels::PackedMatrix* matrix;
  };
  struct VectorJob {
    const GgufTensor* tensor;
    const float** vector;
  };

  Shard() = default;
  void PlanLayer(int64_t index, const ShardSpec::Layer& spec);
  void AddMatrix(Role role, int64_t layer, std::vector<Range> rows, Range cols,
                 kernels::PackedMatrix* matrix);
  void AddVector(Role role, int64_t layer, const float** vector);
  void PackPart(const Job& job, Team::Part groups) const;

  const GgufFile* file_ = nullptr;
  ModelConfig config_;
  std::vector<LayerWeights> layers_;
  Range vocab_;
  kernels::PackedMatrix output_;
  const float* output_norm_ = nullptr;
  const float* rope_factors_ = nullptr;
  std::vector<Job> jobs_;
  std::vector<VectorJob> vector_jobs_;
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
