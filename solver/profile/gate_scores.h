// A layer's gate as a worker computes it, and what its sketches say, for samples of the FFN's
// input. The worker's own kernels, so that thresholds fit the scores they are compared with to the
// bit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/gguf/gguf_file.h"
#include "common/model/sparsity.h"
#include "kernels/ops.h"
#include "kernels/rows.h"
#include "solver/predictor/matrix.h"

namespace thermocline {

class GateScores {
 public:
  // gate [d_ff, d_model] of `file`, which is read here and not needed later.
  GateScores(const GgufFile& file, const GgufTensor& gate, bool has_sketches,
             const kernels::Ops& ops, int n_threads);

  int64_t d_model() const { return gate_.n_cols; }
  int64_t d_ff() const { return gate_.n_rows; }
  // Of a row of results: d_ff, rounded up.
  int64_t stride() const { return stride_; }

  // Inputs in the form that products read.
  struct Inputs {
    MatrixView samples;
    std::vector<int8_t> q;     // [n, d_model]
    std::vector<float> scale;  // [n, d_model / 32]
    std::vector<int32_t> sum;  // [n, d_model / 32]

    kernels::QuantizedRows quantized() const {
      return {q.data(), scale.data(), sum.data(), samples.n_cols};
    }
  };
  // samples [n, d_model] must outlive the result.
  Inputs Prepare(MatrixView samples) const;
  // out [n, stride]: gate . x.
  void Gates(const Inputs& inputs, float* out) const;
  // out [n, stride]: the score that a sketch of so many bits gives.
  void Sketch(int bits, const Inputs& inputs, float* out) const;

  // The gate's values, for training. [d_ff, d_model]
  Matrix Values(int n_threads) const;

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  using Memory = std::unique_ptr<uint8_t, Free>;  // 64-byte aligned
  static Memory Allocate(int64_t n_bytes);

  const kernels::Ops& ops_;
  const int64_t stride_;
  kernels::RowMatrix gate_, sketches_[kMaxSketchBits];
  Memory gate_memory_, sketch_memory_[kMaxSketchBits];
  std::vector<int32_t> rows_;  // 0 to d_ff - 1
};

}  // namespace thermocline
