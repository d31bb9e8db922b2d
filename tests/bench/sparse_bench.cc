// What kernel_bench times of the kernels of active neurons (see sparse_bench.h).
#include "tests/bench/sparse_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

namespace thermocline::kernels {
namespace {

constexpr double kActive = 0.1;

// Numbers below n, ascending, each with this probability.
std::vector<int32_t> some_of(int64_t n, double share) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<double> uniform;
  std::vector<int32_t> numbers;
  for (int64_t i = 0; i < n; ++i) {
    if (uniform(generator) < share) numbers.push_back(static_cast<int32_t>(i));
  }
  return numbers;
}

// Bytes of the lines of 64 that these rows of an array lie in.
int64_t touched_bytes(const std::vector<int32_t>& rows, int64_t row_bytes) {
  int64_t n_lines = 0, next = 0;  // the first line not counted yet
  for (const int64_t row : rows) {
    const int64_t first = std::max(row * row_bytes / 64, next);
    next = std::max(next, ((row + 1) * row_bytes + 63) / 64);
    n_lines += next - first;
  }
  return n_lines * 64;
}

// Thread i's part of n, in steps.
int64_t part(int64_t n, int thread, int n_threads, int64_t step) {
  return thread == n_threads ? n : n * thread / n_threads / step * step;
}

// Activations, and room for outputs; their values do not matter to the time.
struct Inputs {
  std::vector<int32_t> rows;
  std::vector<int8_t> q;
  std::vector<float> x, scale, out;
  std::vector<int32_t> sum;
  std::vector<ActiveBlock> blocks;

  Inputs(int64_t n_in, int64_t n_out)
      : q(n_in, 3),
        x(n_in, 0.5f),
        scale(n_in / kBlockCols + 1, 0.01f),
        out(n_out + 16),
        sum(n_in / kBlockCols + 1, 96) {}
};

Streaming rows_streaming(const Ops& level, TensorType type, int64_t n_cols, double share) {
  RowMatrix w = row_layout(type, 1, n_cols, 0);
  w.n_rows = (kPieceBytes - kRowPadding) / w.rest_bytes;
  auto in = std::make_shared<Inputs>(n_cols, w.n_rows);
  in->rows = some_of(w.n_rows, share);
  const auto work = [=, &level](const uint8_t* data, int thread, int n_threads) {
    RowMatrix matrix = w;
    matrix.rest = data;
    const int64_t n = std::ssize(in->rows);
    const int64_t begin = part(n, thread, n_threads, 16), end = part(n, thread + 1, n_threads, 16);
    float* out = in->out.data() + begin;
    if (type_info(type)->is_float) {
      level.rows_f32(matrix, in->rows.data() + begin, end - begin, in->x.data(), 0, 1, out, 0);
    } else {
      const QuantizedRows x = {in->q.data(), in->scale.data(), in->sum.data(), n_cols};
      level.rows_int8(matrix, in->rows.data() + begin, end - begin, x, 1, out, 0);
    }
  };
  return {fmt::format("rows, {:.0f} %", share * 100), touched_bytes(in->rows, w.rest_bytes), work};
}

Streaming sketch_streaming(const Ops& level, TensorType type, int64_t n_cols, int lead_bits) {
  RowMatrix w = row_layout(type, 1, n_cols, lead_bits);
  w.n_rows = (kPieceBytes - kRowPadding) / w.lead_bytes;
  auto in = std::make_shared<Inputs>(n_cols, w.n_rows);
  auto row_scale = std::make_shared<std::vector<float>>(w.n_rows, 0.1f);
  const auto work = [=, &level](const uint8_t* data, int thread, int n_threads) {
    RowMatrix matrix = w;
    matrix.lead = data;
    matrix.row_scale = row_scale->data();
    const int64_t begin = part(w.n_rows, thread, n_threads, 16);
    const QuantizedRows x = {in->q.data(), in->scale.data(), in->sum.data(), n_cols};
    level.sketch_int8(matrix, begin, part(w.n_rows, thread + 1, n_threads, 16), x, 1,
                      in->out.data() + begin, 0);
  };
  return {fmt::format("sketch, {} bit{}", lead_bits, lead_bits == 1 ? "" : "s"),
          w.n_rows * w.lead_bytes, work};
}

Streaming add_rows_streaming(const Ops& level, TensorType type, int64_t d_model) {
  NeuronMatrix w = transposed_layout(type, 1, d_model);
  w.n_neurons = kPieceBytes / w.row_bytes;
  auto in = std::make_shared<Inputs>(w.n_neurons, d_model);
  in->rows = some_of(w.n_neurons, kActive);
  const auto work = [=, &level](const uint8_t* data, int thread, int n_threads) {
    NeuronMatrix matrix = w;
    matrix.rows = data;
    level.add_rows(matrix, in->rows.data(), in->x.data(), std::ssize(in->rows),
                   part(d_model, thread, n_threads, kLineColumns),
                   part(d_model, thread + 1, n_threads, kLineColumns), in->out.data());
  };
  return {fmt::format("add_rows, {:.0f} %", kActive * 100), touched_bytes(in->rows, w.row_bytes),
          work};
}

Streaming add_blocks_streaming(const Ops& level, TensorType type, int64_t d_model) {
  NeuronMatrix w = neuron_layout(type, kBlockCols, 1, d_model);
  w.n_blocks = kPieceBytes / w.n_bytes();
  w.n_neurons = w.n_blocks * kBlockCols;
  auto in = std::make_shared<Inputs>(w.n_neurons, d_model);
  in->rows = some_of(w.n_neurons, kActive);
  for (int32_t i = 0; i < std::ssize(in->rows); ++i) {
    const int32_t block = in->rows[i] / 32;
    if (in->blocks.empty() || in->blocks.back().block != block) {
      in->blocks.push_back({block, i, i, i, 96, 0.01f});
    }
    ActiveBlock& active = in->blocks.back();
    active.end = i + 1;
    if (in->rows[i] % 32 < 16) active.middle = i + 1;
  }
  const auto work = [=, &level](const uint8_t* data, int thread, int n_threads) {
    NeuronMatrix matrix = w;
    matrix.rows = data;
    matrix.planes = data + w.n_neurons * w.row_bytes;
    level.add_blocks(matrix, in->blocks.data(), std::ssize(in->blocks), in->rows.data(),
                     in->q.data(), part(d_model, thread, n_threads, kLineColumns),
                     part(d_model, thread + 1, n_threads, kLineColumns), in->out.data());
  };
  return {fmt::format("add_blocks, {:.0f} %", kActive * 100),
          touched_bytes(in->rows, w.row_bytes) + std::ssize(in->blocks) * w.plane_bytes, work};
}

}  // namespace

std::vector<Streaming> sparse_streamings(const Ops& level, TensorType type, int64_t d_model) {
  std::vector<Streaming> all;
  for (const double share : {1.0, kActive}) {
    all.push_back(rows_streaming(level, type, d_model, share));
  }
  if (!type_info(type)->is_float) {
    for (const int lead_bits : {1, 2, 3}) {
      all.push_back(sketch_streaming(level, type, d_model, lead_bits));
    }
    all.push_back(add_blocks_streaming(level, type, d_model));
  }
  if (is_transposed_type(type)) all.push_back(add_rows_streaming(level, type, d_model));
  return all;
}

}  // namespace thermocline::kernels
