// Which rows and columns of which tensors a rank needs, and packing them in parallel. The FFN of
// layers that leave neurons out is laid out in sparse_shard.cc.
#include "cpu_worker/shard.h"

#include <algorithm>
#include <cstring>

#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "common/worker/row_cursor.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// What these rows and columns take in the file, without padding.
int64_t FileBytes(const kernels::PackedMatrix& matrix) {
  const TypeInfo* type = type_info(matrix.type);
  return matrix.n_rows * matrix.n_cols * type->block_bytes / type->block_size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Shard>> Shard::Create(const GgufFile* file,
                                                     const ModelConfig& config,
                                                     const ShardSpec& spec,
                                                     const GgufFile* predictor_file,
                                                     const Predictor* predictor) {
  THERMOCLINE_CHECK(static_cast<int64_t>(spec.layers.size()) == config.n_layers);
  if (config.d_model % kernels::kBlockCols != 0) {
    return absl::UnimplementedError(
        fmt::format("d_model {} is not a multiple of {}", config.d_model, kernels::kBlockCols));
  }
  std::unique_ptr<Shard> shard(new Shard());
  shard->file_ = file;
  shard->predictor_file_ = predictor_file;
  shard->predictor_ = predictor;
  shard->config_ = config;
  shard->layers_.resize(spec.layers.size());
  shard->vocab_ = spec.vocab;
  const std::vector<Range> d_model = {{0, config.d_model}};
  shard->AddVector(file, shard->Tensor(Role::kOutputNorm, 0), d_model, &shard->output_norm_);
  if (const GgufTensor* factors = FindRole(*file, Role::kRopeFreqs)) {
    shard->AddVector(file, factors, {{0, factors->dims[0]}}, &shard->rope_factors_);
  }
  const bool is_tied = FindRole(*file, Role::kOutput) == nullptr;
  shard->AddMatrix(is_tied ? Role::kTokenEmbedding : Role::kOutput, 0, {spec.vocab}, d_model[0],
                   &shard->output_);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    RETURN_IF_ERROR(shard->PlanLayer(i, spec.layers[i], spec.f32_activations));
  }
  for (const Job& job : shard->jobs_) shard->weight_bytes_ += Arena::Aligned(job.n_bytes);
  ASSIGN_OR_RETURN(shard->arena_, Arena::Create(shard->weight_bytes_ + kernels::kRowPadding,
                                                "this rank's weights"));
  return shard;
}

absl::Status Shard::PlanLayer(int64_t index, const ShardSpec::Layer& spec, bool f32_activations) {
  LayerWeights& layer = layers_[index];
  layer.kv_heads = spec.kv_heads;
  layer.tail_heads = spec.tail_heads;
  layer.n_neurons = TotalSize(spec.neurons);
  const Range all = {0, config_.d_model};
  AddVector(file_, Tensor(Role::kAttentionNorm, index), {all}, &layer.attention_norm);
  AddVector(file_, Tensor(Role::kFfnNorm, index), {all}, &layer.ffn_norm);
  const int64_t kv_width = config_.d_head;                        // rows of one KV head in k and v
  const int64_t q_width = config_.d_head * config_.group_size();  // rows of its query heads in q
  const Range heads = spec.kv_heads;
  const Range q_rows = {heads.begin * q_width, heads.end * q_width};
  const Range kv_rows = {heads.begin * kv_width, heads.end * kv_width};
  AddMatrix(Role::kAttentionQ, index, {q_rows}, all, &layer.q);
  AddMatrix(Role::kAttentionK, index, {kv_rows}, all, &layer.k);
  AddMatrix(Role::kAttentionV, index, {kv_rows}, all, &layer.v);
  AddMatrix(Role::kAttentionOutput, index, {all}, q_rows, &layer.o);
  // A down that lies by neurons in the file is never turned back, and one that is cut within its
  // quantization blocks can only be held by neurons.
  const bool is_cut_at_blocks =
      std::all_of(spec.neurons.begin(), spec.neurons.end(), [](const Range& range) {
        return range.begin % kNeuronUnit == 0 && range.end % kNeuronUnit == 0;
      });
  if (spec.mode == Sparsity::kOff && is_cut_at_blocks &&
      FindRole(*file_, Role::kFfnDown, index) != nullptr) {
    PlanDenseFfn(index, spec);
    return absl::OkStatus();
  }
  return PlanSparseFfn(index, spec, f32_activations);
}

void Shard::PlanDenseFfn(int64_t index, const ShardSpec::Layer& spec) {
  LayerWeights& layer = layers_[index];
  const Range all = {0, config_.d_model};
  AddMatrix(Role::kFfnGate, index, spec.neurons, all, &layer.gate);
  AddMatrix(Role::kFfnUp, index, spec.neurons, all, &layer.up);
  layer.down.resize(spec.neurons.size());  // before pointers into it are taken
  for (size_t i = 0; i < spec.neurons.size(); ++i) {
    AddMatrix(Role::kFfnDown, index, {all}, spec.neurons[i], &layer.down[i]);
  }
}

const GgufTensor* Shard::Tensor(Role role, int64_t layer) const {
  const GgufTensor* tensor = FindRole(*file_, role, layer);
  THERMOCLINE_CHECK(tensor != nullptr);  // CheckTensors has seen the file
  return tensor;
}

void Shard::AddMatrix(Role role, int64_t layer, const std::vector<Range>& rows, Range cols,
                      kernels::PackedMatrix* matrix) {
  const GgufTensor* tensor = Tensor(role, layer);
  AddMatrix(file_, tensor, rows, cols, matrix);
  token_bytes_ += FileBytes(*matrix);
}

void Shard::AddMatrix(const GgufFile* file, const GgufTensor* tensor,
                      const std::vector<Range>& rows, Range cols, kernels::PackedMatrix* matrix) {
  const int64_t n_rows = cols.size() == 0 ? 0 : TotalSize(rows);
  *matrix = kernels::packed_layout(tensor->type, n_rows, cols.begin, cols.size());
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  const auto pack = [=](int64_t begin, int64_t end) {
    RowCursor cursor(rows, begin * kernels::kGroupRows);
    for (int64_t group = begin; group < end; ++group) {
      const uint8_t* group_rows[kernels::kGroupRows] = {};  // null: a row of zeros fills it up
      for (const uint8_t*& row : group_rows) {
        const int64_t file_row = cursor.Next();
        if (file_row >= 0) row = bytes + file_row * row_bytes;
      }
      kernels::pack_group(*matrix, cols.begin, group_rows,
                          const_cast<uint8_t*>(matrix->data) + group * matrix->group_bytes);
    }
  };
  jobs_.push_back({file, tensor, matrix->n_bytes(), matrix->n_groups(), 2,
                   [=](uint8_t* data) { matrix->data = data; }, pack});
}

void Shard::AddVector(const GgufFile* file, const GgufTensor* tensor,
                      const std::vector<Range>& elements, const float** vector) {
  THERMOCLINE_CHECK(tensor->type == TensorType::kF32);
  const auto n_bytes = TotalSize(elements) * static_cast<int64_t>(sizeof(float));
  const uint8_t* bytes = file->TensorBytes(*tensor).data();
  const auto pack = [=](int64_t begin, int64_t end) {
    if (begin == end) return;
    auto* to = reinterpret_cast<uint8_t*>(const_cast<float*>(*vector));
    for (const Range& range : elements) {
      const auto size = static_cast<size_t>(range.size()) * sizeof(float);
      std::memcpy(to, bytes + range.begin * sizeof(float), size);
      to += size;
    }
  };
  jobs_.push_back({file, tensor, n_bytes, 1, 1,
                   [=](uint8_t* data) { *vector = reinterpret_cast<const float*>(data); }, pack});
  token_bytes_ += n_bytes;
}

absl::Status Shard::Load(Team& team, const std::function<bool(int64_t, int64_t)>& on_progress) {
  for (const Job& job : jobs_) job.place(arena_->Take(job.n_bytes));
  int64_t done = 0;
  bool is_cancelled = false;
  team.Run([&](int32_t thread) {
    for (const Job& job : jobs_) {
      const Team::Part granules =
          team.PartOf((job.n_units + job.granule - 1) / job.granule, thread);
      job.pack(std::min(granules.begin * job.granule, job.n_units),
               std::min(granules.end * job.granule, job.n_units));
      team.Sync(thread, [&] {
        job.file->DropPages(job.tensor->file_offset, job.tensor->n_bytes);
        done += Arena::Aligned(job.n_bytes);
        is_cancelled = !on_progress(done, weight_bytes_);
      });
      if (is_cancelled) return;
    }
  });
  jobs_.clear();
  return is_cancelled ? absl::CancelledError("loading was cancelled") : absl::OkStatus();
}

}  // namespace thermocline
