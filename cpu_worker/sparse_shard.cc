// The FFN weights of layers that leave neurons out: gate and up by rows, down by neurons, what
// decides. shard.cc has the rest of a shard.
#include <algorithm>
#include <cstring>

#include "common/gguf/dequantize.h"
#include "common/util/check.h"
#include "common/util/status_macros.h"
#include "common/worker/row_cursor.h"
#include "cpu_worker/shard.h"
#include "fmt/format.h"
#include "kernels/sketch.h"

namespace thermocline {
namespace {

constexpr int64_t kRowGranule = 32;

// Places of the rows of some ranges, and the file's numbers of the blocks that they lie in.
void FindPlaces(const std::vector<Range>& neurons, std::vector<int32_t>* places,
                std::vector<int64_t>* blocks) {
  for (const Range& range : neurons) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const int64_t block = i / kNeuronUnit;
      if (blocks->empty() || blocks->back() != block) blocks->push_back(block);
      places->push_back(static_cast<int32_t>((blocks->size() - 1) * kNeuronUnit + i % kNeuronUnit));
    }
  }
}

}  // namespace

absl::Status Shard::PlanSparseFfn(int64_t index, const ShardSpec::Layer& spec,
                                  bool f32_activations) {
  LayerWeights& layer = layers_[index];
  layer.sparse = std::make_unique<SparseWeights>();
  SparseWeights* weights = layer.sparse.get();
  weights->mode = spec.mode;
  weights->threshold = spec.threshold;
  weights->all_rows.resize(layer.n_neurons);
  for (int64_t i = 0; i < layer.n_neurons; ++i) weights->all_rows[i] = static_cast<int32_t>(i);

  const GgufTensor* gate = Tensor(Role::kFfnGate, index);
  const bool is_sketch = spec.mode == Sparsity::kSketch;
  const bool splits = is_sketch && !gate->info()->is_float && !f32_activations;
  AddRows(gate, spec.neurons, splits ? spec.sketch_bits : 0, f32_activations, &weights->gate);
  AddRows(Tensor(Role::kFfnUp, index), spec.neurons, 0, f32_activations, &weights->up);
  if (is_sketch && !splits) AddSketch(gate, spec.neurons, spec.sketch_bits, &weights->sketch);
  for (const Range& range : spec.choices) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      weights->choices.push_back(static_cast<int32_t>(i));
    }
  }
  if (spec.mode == Sparsity::kPredict && spec.choices.empty()) {
    RETURN_IF_ERROR(PlanPredictor(index, spec, weights));
  }
  PlanDown(index, spec, f32_activations, weights);
  return absl::OkStatus();
}

absl::Status Shard::PlanPredictor(int64_t index, const ShardSpec::Layer& spec,
                                  SparseWeights* weights) {
  if (predictor_ == nullptr) {
    return absl::FailedPreconditionError("sparsity predict needs a predictor, and there is none");
  }
  const PredictorLayer& layer = predictor_->layers[index];
  if (!layer.fc2->info()->is_float && layer.rank % kernels::kBlockCols != 0) {
    return absl::UnimplementedError(fmt::format("{}: rank {} of layer {} is not a multiple of {}",
                                                predictor_file_->path(), layer.rank, index,
                                                kernels::kBlockCols));
  }
  weights->predictor_has_relu = predictor_->has_relu;
  weights->predictor_reads_residual = predictor_->reads_residual;
  AddMatrix(predictor_file_, layer.fc1, {{0, layer.rank}}, {0, config_.d_model}, &weights->fc1);
  AddMatrix(predictor_file_, layer.fc2, spec.neurons, {0, layer.rank}, &weights->fc2);
  if (layer.bias != nullptr) {
    AddVector(predictor_file_, layer.bias, spec.neurons, &weights->fc2_bias);
  }
  return absl::OkStatus();
}

void Shard::AddRows(const GgufTensor* tensor, const std::vector<Range>& rows, int lead_bits,
                    bool as_f32, kernels::RowMatrix* matrix) {
  const int64_t n_rows = TotalSize(rows);
  const TensorType type = as_f32 ? TensorType::kF32 : tensor->type;
  *matrix = kernels::row_layout(type, n_rows, config_.d_model, lead_bits);
  const uint8_t* bytes = file_->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  const int64_t rest_bytes = n_rows * matrix->rest_bytes + kernels::kRowPadding;
  const int64_t lead_bytes = n_rows * matrix->lead_bytes + kernels::kRowPadding;
  const auto pack = [=, this](int64_t begin, int64_t end) {
    RowCursor cursor(rows, begin);
    std::vector<float> values(as_f32 ? config_.d_model : 0);
    for (int64_t row = begin; row < end; ++row) {
      const uint8_t* from = bytes + cursor.Next() * row_bytes;
      if (as_f32) {
        dequantize(tensor->type, from, config_.d_model, values.data());
        from = reinterpret_cast<const uint8_t*>(values.data());
      }
      kernels::pack_row(*matrix, row, from);
    }
  };
  const auto place = [=](uint8_t* data) {
    matrix->rest = data;
    matrix->lead = data + Arena::Aligned(rest_bytes);
    matrix->row_scale = reinterpret_cast<const float*>(matrix->lead + Arena::Aligned(lead_bytes));
  };
  const int64_t n_bytes = Arena::Aligned(rest_bytes) + Arena::Aligned(lead_bytes) +
                          n_rows * static_cast<int64_t>(sizeof(float));
  jobs_.push_back({file_, tensor, n_bytes, n_rows, kRowGranule, place, pack});
}

// Only the lead is kept.
void Shard::AddSketch(const GgufTensor* tensor, const std::vector<Range>& rows, int lead_bits,
                      kernels::RowMatrix* matrix) {
  const int64_t n_rows = TotalSize(rows);
  *matrix = kernels::sketch_layout(tensor->type, n_rows, config_.d_model, lead_bits);
  const uint8_t* bytes = file_->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  const auto pack = [=](int64_t begin, int64_t end) {
    RowCursor cursor(rows, begin);
    kernels::SketchPacker packer(*matrix, tensor->type);
    for (int64_t row = begin; row < end; ++row) {
      packer.Pack(row, bytes + cursor.Next() * row_bytes);
    }
  };
  jobs_.push_back({file_, tensor, kernels::sketch_bytes(*matrix), n_rows, kRowGranule,
                   [=](uint8_t* data) { kernels::place_sketch(data, matrix); }, pack});
}

void Shard::PlanDown(int64_t index, const ShardSpec::Layer& spec, bool f32_activations,
                     SparseWeights* weights) {
  std::vector<int64_t> blocks;  // [n_blocks], the file's numbers
  FindPlaces(spec.neurons, &weights->places, &blocks);
  const int64_t n_rows = TotalSize(spec.neurons);
  kernels::NeuronMatrix* down = &weights->down;
  if (const GgufTensor* tensor = FindRole(*file_, Role::kFfnDownT, index)) {
    *down = kernels::transposed_layout(tensor->type, n_rows, config_.d_model);
    const uint8_t* bytes = file_->TensorBytes(*tensor).data();
    const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
    const std::vector<Range>& rows = spec.neurons;
    jobs_.push_back({file_, tensor, down->n_bytes(), n_rows, kRowGranule,
                     [=](uint8_t* data) { down->rows = data; },
                     [=](int64_t begin, int64_t end) {
                       RowCursor cursor(rows, begin);
                       for (int64_t row = begin; row < end; ++row) {
                         kernels::pack_transposed_row(*down, row,
                                                      bytes + cursor.Next() * row_bytes);
                       }
                     }});
    return;
  }
  const GgufTensor* tensor = Tensor(Role::kFfnDown, index);
  const auto n_blocks = static_cast<int64_t>(blocks.size());
  *down = kernels::neuron_layout(f32_activations ? TensorType::kF32 : tensor->type, n_rows,
                                 n_blocks, config_.d_model);
  // [n_blocks, 32]: which row each neuron of a block is, or -1.
  std::vector<int32_t> row_at(n_blocks * kNeuronUnit, -1);
  for (int64_t row = 0; row < n_rows; ++row) {
    row_at[weights->places[row]] = static_cast<int32_t>(row);
  }
  const uint8_t* bytes = file_->TensorBytes(*tensor).data();
  const auto row_bytes = static_cast<int64_t>(tensor->row_bytes());
  const auto pack = [=, this](int64_t begin, int64_t end) {
    const int64_t n_cols = config_.d_model;
    std::vector<float> values;  // of a block's super-block, then [d_model, 32]
    for (int64_t b = begin; b < end; ++b) {
      const int32_t* at = row_at.data() + b * kNeuronUnit;
      if (!f32_activations) {
        kernels::pack_neuron_block(*down, b, at, bytes, row_bytes, blocks[b]);
        continue;
      }
      const TypeInfo* type = tensor->info();
      const int64_t width = std::max<int64_t>(type->block_size, kNeuronUnit);
      const int64_t first = blocks[b] * kNeuronUnit;
      values.resize(width);
      std::vector<float> columns(n_cols * kNeuronUnit);
      for (int64_t col = 0; col < n_cols; ++col) {
        const uint8_t* from =
            bytes + col * row_bytes + first / width * width / type->block_size * type->block_bytes;
        dequantize(tensor->type, from, width, values.data());
        std::memcpy(columns.data() + col * kNeuronUnit, values.data() + first % width,
                    kNeuronUnit * sizeof(float));
      }
      kernels::pack_neuron_block(*down, b, at, reinterpret_cast<const uint8_t*>(columns.data()),
                                 kNeuronUnit * static_cast<int64_t>(sizeof(float)), 0);
    }
  };
  const auto place = [=](uint8_t* data) {
    down->rows = data;
    down->planes = data + n_rows * down->row_bytes;  // rows are whole lines
  };
  jobs_.push_back({file_, tensor, down->n_bytes(), n_blocks, 1, place, pack});
}

}  // namespace thermocline
