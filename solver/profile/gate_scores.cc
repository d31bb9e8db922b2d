// Packs a gate as shards do, and calls the kernels.
#include "solver/profile/gate_scores.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>

#include "kernels/sketch.h"
#include "solver/predictor/parallel.h"

namespace thermocline {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kRowsAtOnce = 256;  // packed by a thread

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Calls pack(begin, end) for all rows.
template <typename Pack>
void ForRows(int n_threads, int64_t n_rows, const Pack& pack) {
  ForParts(n_threads, RoundUp(n_rows, kRowsAtOnce) / kRowsAtOnce, [&](int64_t part) {
    pack(part * kRowsAtOnce, std::min((part + 1) * kRowsAtOnce, n_rows));
  });
}

}  // namespace

void GateScores::Free::operator()(uint8_t* data) const { std::free(data); }

GateScores::Memory GateScores::Allocate(int64_t n_bytes) {
  void* data = std::aligned_alloc(kAlignment, static_cast<size_t>(RoundUp(n_bytes, kAlignment)));
  if (data == nullptr) throw std::bad_alloc();
  return Memory(static_cast<uint8_t*>(data));
}

GateScores::GateScores(const GgufFile& file, const GgufTensor& gate, bool has_sketches,
                       const kernels::Ops& ops, int n_threads)
    : ops_(ops), stride_(RoundUp(gate.n_rows(), kernels::kGroupRows)), rows_(gate.n_rows()) {
  std::iota(rows_.begin(), rows_.end(), 0);
  const uint8_t* bytes = file.TensorBytes(gate).data();
  const auto row_bytes = static_cast<int64_t>(gate.row_bytes());
  const int64_t n_rows = gate.n_rows();
  gate_ = kernels::row_layout(gate.type, n_rows, gate.dims[0], /*lead_bits=*/0);
  gate_memory_ = Allocate(n_rows * gate_.rest_bytes + kernels::kRowPadding);
  gate_.rest = gate_.lead = gate_memory_.get();  // there is no lead to write
  ForRows(n_threads, n_rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels::pack_row(gate_, row, bytes + row * row_bytes);
    }
  });
  for (int bits = 1; has_sketches && bits <= kMaxSketchBits; ++bits) {
    kernels::RowMatrix& sketch = sketches_[bits - 1];
    sketch = kernels::sketch_layout(gate.type, n_rows, gate.dims[0], bits);
    sketch_memory_[bits - 1] = Allocate(kernels::sketch_bytes(sketch));
    kernels::place_sketch(sketch_memory_[bits - 1].get(), &sketch);
    ForRows(n_threads, n_rows, [&](int64_t begin, int64_t end) {
      kernels::SketchPacker packer(sketch, gate.type);
      for (int64_t row = begin; row < end; ++row) packer.Pack(row, bytes + row * row_bytes);
    });
  }
}

GateScores::Inputs GateScores::Prepare(MatrixView samples) const {
  const int64_t n = samples.n_rows * samples.n_cols;
  Inputs inputs = {samples, std::vector<int8_t>(n), std::vector<float>(n / kernels::kBlockCols),
                   std::vector<int32_t>(n / kernels::kBlockCols)};
  for (int64_t t = 0; t < samples.n_rows; ++t) {
    const int64_t at = t * samples.n_cols, block = at / kernels::kBlockCols;
    ops_.quantize(samples.row(t), samples.n_cols, inputs.q.data() + at, inputs.scale.data() + block,
                  inputs.sum.data() + block);
  }
  return inputs;
}

void GateScores::Gates(const Inputs& inputs, float* out) const {
  const MatrixView& samples = inputs.samples;
  if (type_info(gate_.type)->is_float) {
    ops_.rows_f32(gate_, rows_.data(), d_ff(), samples.data, samples.n_cols, samples.n_rows, out,
                  stride_);
  } else {
    ops_.rows_int8(gate_, rows_.data(), d_ff(), inputs.quantized(), samples.n_rows, out, stride_);
  }
}

void GateScores::Sketch(int bits, const Inputs& inputs, float* out) const {
  ops_.sketch_int8(sketches_[bits - 1], 0, d_ff(), inputs.quantized(), inputs.samples.n_rows, out,
                   stride_);
}

Matrix GateScores::Values(int n_threads) const {
  Matrix values(gate_.n_rows, gate_.n_cols);
  ForRows(n_threads, d_ff(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) kernels::unpack_row(gate_, row, values.row(row));
  });
  return values;
}

}  // namespace thermocline
