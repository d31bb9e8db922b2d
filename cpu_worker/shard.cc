// Which rows and columns of which tensors a rank needs, and packing them in parallel.
#include "cpu_worker/shard.h"

#include <algorithm>
#include <cstring>

#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// What these rows and columns take in the file, without padding.
int64_t FileBytes(const kernels::PackedMatrix& matrix) {
  const TypeInfo* type = type_info(matrix.type);
  return matrix.n_rows * matrix.n_cols * type->block_bytes / type->block_size;
}

}  // namespace

int64_t TotalSize(const std::vector<Range>& ranges) {
  int64_t total = 0;
  for (const Range& range : ranges) total += range.size();
  return total;
}

ShardSpec SpecOfRank(const Plan& plan, int32_t rank) {
  ShardSpec spec;
  for (const LayerPlan& layer : plan.layers) {
    spec.layers.push_back({layer.kv_heads[rank], layer.neurons[rank]});
  }
  spec.vocab = plan.vocab[rank];
  return spec;
}

absl::StatusOr<std::unique_ptr<Shard>> Shard::Create(const GgufFile* file,
                                                     const ModelConfig& config,
                                                     const ShardSpec& spec) {
  THERMOCLINE_CHECK(static_cast<int64_t>(spec.layers.size()) == config.n_layers);
  if (config.d_model % kernels::kBlockCols != 0) {
    return absl::UnimplementedError(
        fmt::format("d_model {} is not a multiple of {}", config.d_model, kernels::kBlockCols));
  }
  std::unique_ptr<Shard> shard(new Shard());
  shard->file_ = file;
  shard->config_ = config;
  shard->layers_.resize(spec.layers.size());
  shard->vocab_ = spec.vocab;
  shard->AddVector(Role::kOutputNorm, 0, &shard->output_norm_);
  if (FindRole(*file, Role::kRopeFreqs) != nullptr) {
    shard->AddVector(Role::kRopeFreqs, 0, &shard->rope_factors_);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) shard->PlanLayer(i, spec.layers[i]);
  const bool is_tied = FindRole(*file, Role::kOutput) == nullptr;
  shard->AddMatrix(is_tied ? Role::kTokenEmbedding : Role::kOutput, 0, {spec.vocab},
                   {0, config.d_model}, &shard->output_);

  int64_t n_bytes = 0;
  for (const Job& job : shard->jobs_) n_bytes += Arena::Aligned(job.matrix->n_bytes());
  for (const VectorJob& job : shard->vector_jobs_) {
    n_bytes += Arena::Aligned(static_cast<int64_t>(job.tensor->n_bytes));
  }
  shard->weight_bytes_ = n_bytes;
  for (const Job& job : shard->jobs_) shard->token_bytes_ += FileBytes(*job.matrix);
  for (const VectorJob& job : shard->vector_jobs_) {
    shard->token_bytes_ += static_cast<int64_t>(job.tensor->n_bytes);
  }
  ASSIGN_OR_RETURN(shard->arena_, Arena::Create(n_bytes, "this rank's weights"));
  return shard;
}

void Shard::PlanLayer(int64_t index, const ShardSpec::Layer& spec) {
  LayerWeights& layer = layers_[index];
  layer.kv_heads = spec.kv_heads;
  layer.n_neurons = TotalSize(spec.neurons);
  AddVector(Role::kAttentionNorm, index, &layer.attention_norm);
  AddVector(Role::kFfnNorm, index, &layer.ffn_norm);
  const Range all = {0, config_.d_model};
  const int64_t kv_width = config_.d_head;                        // rows of one KV head in k and v
  const int64_t q_width = config_.d_head * config_.group_size();  // rows of its query heads in q
  const Range heads = spec.kv_heads;
  const Range q_rows = {heads.begin * q_width, heads.end * q_width};
  const Range kv_rows = {heads.begin * kv_width, heads.end * kv_width};
  AddMatrix(Role::kAttentionQ, index, {q_rows}, all, &layer.q);
  AddMatrix(Role::kAttentionK, index, {kv_rows}, all, &layer.k);
  AddMatrix(Role::kAttentionV, index, {kv_rows}, all, &layer.v);
  AddMatrix(Role::kAttentionOutput, index, {all}, q_rows, &layer.o);
  AddMatrix(Role::kFfnGate, index, spec.neurons, all, &layer.gate);
  AddMatrix(Role::kFfnUp, index, spec.neurons, all, &layer.up);
  layer.down.resize(spec.neurons.size());  // before pointers into it are taken
  for (size_t i = 0; i < spec.neurons.size(); ++i) {
    AddMatrix(Role::kFfnDown, index, {all}, spec.neurons[i], &layer.down[i]);
  }
}

void Shard::AddMatrix(Role role, int64_t layer, std::vector<Range> rows, Range cols,
                      kernels::PackedMatrix* matrix) {
  const GgufTensor* tensor = FindRole(*file_, role, layer);
  THERMOCLINE_CHECK(tensor != nullptr);  // CheckTensors has seen the file
  const int64_t n_rows = cols.size() == 0 ? 0 : TotalSize(rows);
  *matrix = kernels::packed_layout(tensor->type, n_rows, cols.begin, cols.size());
  jobs_.push_back({tensor, std::move(rows), cols, matrix});
}

void Shard::AddVector(Role role, int64_t layer, const float** vector) {
  const GgufTensor* tensor = FindRole(*file_, role, layer);
  THERMOCLINE_CHECK(tensor != nullptr && tensor->type == TensorType::kF32);
  vector_jobs_.push_back({tensor, vector});
}

void Shard::PackPart(const Job& job, Team::Part groups) const {
  const uint8_t* bytes = file_->TensorBytes(*job.tensor).data();
  const int64_t row_bytes = job.tensor->row_bytes();
  const kernels::PackedMatrix& matrix = *job.matrix;
  // Walks the row ranges once: `index` counts packed rows, `next` is the file row of the next one.
  size_t range = 0;
  int64_t skipped = groups.begin * kernels::kGroupRows;
  while (range < job.rows.size() && skipped >= job.rows[range].size()) {
    skipped -= job.rows[range++].size();
  }
  int64_t next = range < job.rows.size() ? job.rows[range].begin + skipped : 0;
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    const uint8_t* rows[kernels::kGroupRows] = {};
    for (int64_t i = 0; i < kernels::kGroupRows; ++i) {
      while (range < job.rows.size() && next == job.rows[range].end) {
        if (++range < job.rows.size()) next = job.rows[range].begin;
      }
      if (range == job.rows.size()) break;  // the last group is filled up with rows of zeros
      rows[i] = bytes + next++ * row_bytes;
    }
    kernels::pack_group(matrix, job.cols.begin, rows,
                        const_cast<uint8_t*>(matrix.data) + group * matrix.group_bytes);
  }
}

absl::Status Shard::Load(Team& team, const std::function<bool(int64_t, int64_t)>& on_progress) {
  int64_t done = 0;
  for (const VectorJob& job : vector_jobs_) {
    const auto n_bytes = static_cast<int64_t>(job.tensor->n_bytes);
    *job.vector = reinterpret_cast<const float*>(arena_->Take(n_bytes));
    done += Arena::Aligned(n_bytes);
  }
  for (const Job& job : jobs_) job.matrix->data = arena_->Take(job.matrix->n_bytes());

  bool is_cancelled = false;
  team.Run([&](int32_t thread) {
    team.Sync(thread, [&] {
      for (const VectorJob& job : vector_jobs_) {
        std::memcpy(const_cast<float*>(*job.vector), file_->TensorBytes(*job.tensor).data(),
                    job.tensor->n_bytes);
      }
    });
    for (const Job& job : jobs_) {
      PackPart(job, GroupsOf(team, *job.matrix, thread));
      team.Sync(thread, [&] {
        file_->DropPages(job.tensor->file_offset, job.tensor->n_bytes);
        done += Arena::Aligned(job.matrix->n_bytes());
        is_cancelled = !on_progress(done, weight_bytes_);
      });
      if (is_cancelled) return;
    }
  });
  jobs_.clear();
  vector_jobs_.clear();
  return is_cancelled ? absl::CancelledError("loading was cancelled") : absl::OkStatus();
}

}  // namespace thermocline
