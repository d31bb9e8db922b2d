// Choosing neurons, and the three products over those chosen.
#include "cpu_worker/sparse_ffn.h"

#include <algorithm>
#include <cmath>

namespace thermocline {
namespace {

using kernels::kBlockCols;
using kernels::kGroupRows;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Lines that a row takes from memory, in bytes: where rows do not begin with a line, 3/4 of one
// more on average (rows begin at multiples of 16 bytes).
uint64_t LineBytes(int64_t n_bytes) {
  return static_cast<uint64_t>(n_bytes % 64 == 0 ? n_bytes : n_bytes + 48);
}

}  // namespace

void SparseFfn::Active::Clear() {
  rows.clear();
  a.clear();
  q.clear();
  blocks.clear();
}

SparseFfn::SparseFfn(const Shard* shard, const kernels::Ops* ops, Team* team, StepClock* clock,
                     const Options& options)
    : shard_(shard), ops_(ops), team_(team), clock_(clock), options_(options) {
  int64_t max_neurons = 0, max_rank = 0;
  for (const LayerWeights& layer : shard->layers()) {
    if (layer.sparse == nullptr) continue;
    max_neurons = std::max(max_neurons, layer.n_neurons);
    max_rank = std::max(max_rank, layer.sparse->fc1.n_rows);
  }
  counts_.resize(shard->layers().size());
  private_.resize(team->size());
  if (max_neurons == 0) return;
  stride_ = RoundUp(max_neurons, 2 * kGroupRows) + kGroupRows * (team->size() + 2);
  const int64_t n = options.max_tokens * stride_;
  gate_.resize(n);
  up_.resize(n);
  act_.resize(n);
  selected_.resize(n);
  chosen_.resize(stride_);
  fired_.resize(stride_);
  any_.resize(stride_);
  hidden_.Allocate(options.max_tokens, RoundUp(max_rank, 2 * kGroupRows));
  for (Private& own : private_) {
    own.hidden.Allocate(1, hidden_.width());
    own.active.resize(options.max_tokens);
    own.layers.resize(counts_.size());
  }
}

bool SparseFfn::ChoosesFor(const SparseWeights& weights, const StepToken& token) const {
  return token.mode == TokenMode::kAsPlanned &&
         (weights.mode == Sparsity::kPredict || weights.mode == Sparsity::kSketch);
}

bool SparseFfn::Selects(const SparseWeights& weights, const Input& input) const {
  return std::any_of(input.tokens, input.tokens + input.n_tokens,
                     [&](const StepToken& token) { return ChoosesFor(weights, token); });
}

// Whether up and down are computed for a gate of this value. A NaN fires.
bool SparseFfn::Fires(const SparseWeights& weights, const StepToken& token, float gate) const {
  const bool is_planned = token.mode == TokenMode::kAsPlanned;
  if (token.mode == TokenMode::kOff || (is_planned && weights.mode == Sparsity::kOff)) return true;
  const bool is_relu = IsRelu(shard_->config().activation);
  if (is_planned && weights.mode == Sparsity::kThreshold) {
    return !((is_relu ? gate : std::fabs(gate)) <= weights.threshold);
  }
  return is_relu ? !(gate <= 0.0f) : gate != 0.0f;
}

void SparseFfn::Run(int32_t thread, int64_t layer, const Input& input, Exchange* exchange,
                    float* out) {
  const SparseWeights& weights = *shard_->layers()[layer].sparse;
  Private& own = private_[thread];
  own.counts = {};
  const auto n_rows = static_cast<int64_t>(weights.all_rows.size());
  const bool selects = Selects(weights, input);
  if (selects) Choose(thread, weights, input);
  const bool reads_all =
      options_.measures_recall ||
      std::any_of(input.tokens, input.tokens + input.n_tokens,
                  [&](const StepToken& token) { return !ChoosesFor(weights, token); });
  team_->Sync(thread, [&] {
    list_ = weights.all_rows.data();
    n_list_ = n_rows;
    if (reads_all) return;
    list_ = chosen_.data();
    n_list_ = 0;
    for (int32_t t = 0; t < team_->size(); ++t) {  // to the front, in order
      const int64_t first = team_->PartOf(RoundUp(n_rows, 32) / 32, t).begin * 32;
      std::copy_n(chosen_.begin() + first, private_[t].n_chosen, chosen_.begin() + n_list_);
      n_list_ += private_[t].n_chosen;
    }
  });
  clock_->Mark(thread, TraceOp::kChoose);
  const Part part = PartOfList(thread, weights);
  const int64_t n_fired = Gate(thread, weights, input, part, exchange);
  clock_->Mark(thread, TraceOp::kGate);
  Up(weights, input, part.at, n_fired, exchange, thread);
  ListActive(thread, weights, input, part.at, n_fired);
  clock_->Mark(thread, TraceOp::kUp);
  team_->Sync(thread);
  clock_->Mark(thread, TraceOp::kOther);
  Down(thread, weights, input, exchange, out);
  clock_->Mark(thread, TraceOp::kDown);

  const uint64_t gate_bytes = LineBytes(weights.gate.rest_bytes);
  own.counts.bytes += static_cast<uint64_t>(part.n) * gate_bytes +
                      static_cast<uint64_t>(n_fired) *
                          (LineBytes(weights.up.rest_bytes) + LineBytes(weights.down.row_bytes));
  if (thread == 0) {
    own.counts.tokens += static_cast<uint64_t>(input.n_tokens);
    own.counts.neurons += static_cast<uint64_t>(input.n_tokens * n_rows);
  }
  own.layers[layer].Add(own.counts);
}

void SparseFfn::Choose(int32_t thread, const SparseWeights& weights, const Input& input) {
  const auto n_rows = static_cast<int64_t>(weights.all_rows.size());
  const Team::Part blocks = team_->PartOf(RoundUp(n_rows, 32) / 32, thread);
  const int64_t begin = blocks.begin * 32, end = std::min(blocks.end * 32, n_rows);
  FfnCounts& counts = private_[thread].counts;
  if (weights.mode == Sparsity::kPredict && weights.choices.empty()) {
    Predict(thread, weights, input);
    counts.bytes += static_cast<uint64_t>(weights.fc1.n_bytes() + weights.fc2.n_bytes()) /
                    static_cast<uint64_t>(team_->size());
  } else if (weights.mode == Sparsity::kSketch && begin < end) {
    const bool is_split = weights.gate.lead_bits > 0;
    const kernels::RowMatrix& sketch = is_split ? weights.gate : weights.sketch;
    ops_->sketch_int8(sketch, begin, end, input.normed->quantized(), input.n_tokens,
                      up_.data() + begin, stride_);
    counts.bytes += static_cast<uint64_t>((end - begin) * sketch.lead_bytes);
  }
  ListChosen(thread, weights, input);
}

void SparseFfn::Predict(int32_t thread, const SparseWeights& weights, const Input& input) {
  const auto product = [&](const kernels::PackedMatrix& matrix, const Activations& x, float* out,
                           int64_t out_stride) {
    const Team::Part groups = GroupsOf(*team_, matrix, thread);
    float* first = out + groups.begin * kGroupRows;
    if (options_.f32_activations || type_info(matrix.type)->is_float) {
      ops_->matmul_f32(matrix, groups.begin, groups.end, x.f32(), x.width(), input.n_tokens, first,
                       out_stride);
    } else {
      ops_->matmul_int8(matrix, groups.begin, groups.end, x.quantized(), input.n_tokens, first,
                        out_stride);
    }
  };
  const Activations& x = weights.predictor_reads_residual ? *input.residual : *input.normed;
  product(weights.fc1, x, hidden_.row(0), hidden_.width());
  team_->Sync(thread);
  // With one token every thread prepares the whole input of fc2 for itself, as elsewhere.
  const bool is_one = input.n_tokens == 1;
  const int64_t rank = weights.fc1.n_rows;
  Activations& hidden = is_one ? private_[thread].hidden : hidden_;
  const Team::Part tokens = is_one ? Team::Part{0, 1} : team_->PartOf(input.n_tokens, thread);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    const float* from = hidden_.row(t);
    float* to = hidden.row(t);
    for (int64_t i = 0; i < rank; ++i) {
      to[i] = weights.predictor_has_relu && from[i] < 0.0f ? 0.0f : from[i];
    }
    hidden.Quantize(*ops_, t, 0, rank);
  }
  if (!is_one) team_->Sync(thread);
  product(weights.fc2, hidden, up_.data(), stride_);
}

void SparseFfn::ListChosen(int32_t thread, const SparseWeights& weights, const Input& input) {
  const auto n_rows = static_cast<int64_t>(weights.all_rows.size());
  const Team::Part blocks = team_->PartOf(RoundUp(n_rows, 32) / 32, thread);
  const int64_t begin = blocks.begin * 32, end = std::min(blocks.end * 32, n_rows);
  Private& own = private_[thread];
  own.n_chosen = 0;
  uint8_t* any = any_.data();
  std::fill(any + begin, any + end, uint8_t{0});
  for (int64_t t = 0; t < input.n_tokens; ++t) {
    if (!ChoosesFor(weights, input.tokens[t])) continue;
    Select(weights, input, t, begin, end);
    const uint8_t* selected = selected_.data() + t * stride_;
    uint64_t n_selected = 0;
    for (int64_t row = begin; row < end; ++row) {
      n_selected += selected[row];
      any[row] |= selected[row];
    }
    own.counts.computed += n_selected;
  }
  for (int64_t row = begin; row < end; ++row) {
    if (any[row] != 0) chosen_[begin + own.n_chosen++] = static_cast<int32_t>(row);
  }
}

// Which of rows [begin, end) the token wants: as another rank has chosen, or by their scores.
void SparseFfn::Select(const SparseWeights& weights, const Input& input, int64_t token,
                       int64_t begin, int64_t end) {
  uint8_t* selected = selected_.data() + token * stride_;
  if (!weights.choices.empty()) {
    const uint32_t* bits = input.choices.bits + token * input.choices.stride;
    for (int64_t row = begin; row < end; ++row) {
      const int32_t at = weights.choices[row];
      selected[row] = bits[at / 32] >> at % 32 & 1;
    }
    return;
  }
  const float* scores = up_.data() + token * stride_;
  const float* bias = weights.fc2_bias;
  for (int64_t row = begin; row < end; ++row) {  // a NaN is chosen, and so seen
    const float score = bias == nullptr ? scores[row] : scores[row] + bias[row];
    selected[row] = !(score <= weights.threshold);
  }
}

// Parts are cut where a quantization block ends, so that a thread quantizes what it computed.
SparseFfn::Part SparseFfn::PartOfList(int32_t thread, const SparseWeights& weights) const {
  const auto cut = [&](int64_t at) {
    while (at > 0 && at < n_list_ &&
           weights.places[list_[at]] / kBlockCols == weights.places[list_[at - 1]] / kBlockCols) {
      ++at;
    }
    return at;
  };
  const Team::Part part = team_->PartOf(n_list_, thread);
  const int64_t begin = cut(part.begin), end = cut(part.end);
  // Two parts rounded up may take 16 more than both together.
  return {list_ + begin, end - begin, RoundUp(begin, kGroupRows) + kGroupRows * thread};
}

void SparseFfn::RowProduct(const kernels::RowMatrix& matrix, const int32_t* rows, int64_t n,
                           const Input& input, float* out) const {
  if (type_info(matrix.type)->is_float) {
    ops_->rows_f32(matrix, rows, n, input.normed->f32(), input.normed->width(), input.n_tokens, out,
                   stride_);
  } else {
    ops_->rows_int8(matrix, rows, n, input.normed->quantized(), input.n_tokens, out, stride_);
  }
}

int64_t SparseFfn::Gate(int32_t thread, const SparseWeights& weights, const Input& input,
                        const Part& part, Exchange* exchange) {
  const int64_t step = RowsAtOnce(weights.gate.n_cols, input.n_tokens);
  for (int64_t i = 0; i < part.n; i += step) {
    RowProduct(weights.gate, part.rows + i, std::min(step, part.n - i), input,
               gate_.data() + part.at + i);
    if (thread == 0) exchange->Working();
  }
  return KeepFired(thread, weights, input, part);
}

int64_t SparseFfn::KeepFired(int32_t thread, const SparseWeights& weights, const Input& input,
                             const Part& part) {
  FfnCounts& counts = private_[thread].counts;
  const bool is_alone = input.n_tokens == 1 && !options_.measures_recall;
  uint8_t* any = any_.data() + part.at;
  std::fill_n(any, part.n, uint8_t{0});
  for (int64_t t = 0; t < input.n_tokens; ++t) {
    const StepToken& token = input.tokens[t];
    const bool is_chosen_for = ChoosesFor(weights, token);
    const bool has_mask = is_chosen_for && !is_alone;
    const uint8_t* selected = selected_.data() + t * stride_;
    float* gates = gate_.data() + t * stride_ + part.at;
    if (!is_chosen_for) counts.computed += static_cast<uint64_t>(part.n);
    for (int64_t i = 0; i < part.n; ++i) {
      bool fires = Fires(weights, token, gates[i]);
      const bool is_ruled_out = has_mask && selected[part.rows[i]] == 0;
      if (options_.measures_recall && fires) {
        counts.mass += std::fabs(gates[i]);
        counts.missed += is_ruled_out;
        if (is_ruled_out) counts.missed_mass += std::fabs(gates[i]);
      }
      fires = fires && !is_ruled_out;
      counts.fired += fires;
      if (input.fired != nullptr) input.fired[part.rows[i]] += fires;
      any[i] |= fires;
      if (!fires) gates[i] = 0.0f;
    }
  }
  for (int64_t t = 0; t < input.n_tokens; ++t) {
    float* gates = gate_.data() + t * stride_ + part.at;
    int64_t n = 0;
    for (int64_t i = 0; i < part.n; ++i) {
      if (any[i] != 0) gates[n++] = gates[i];
    }
  }
  int64_t n = 0;
  int32_t* rows = fired_.data() + part.at;
  for (int64_t i = 0; i < part.n; ++i) {
    if (any[i] != 0) rows[n++] = part.rows[i];
  }
  return n;
}

void SparseFfn::Up(const SparseWeights& weights, const Input& input, int64_t at, int64_t n,
                   Exchange* exchange, int32_t thread) {
  const int64_t step = RowsAtOnce(weights.up.n_cols, input.n_tokens);
  for (int64_t i = 0; i < n; i += step) {
    RowProduct(weights.up, fired_.data() + at + i, std::min(step, n - i), input,
               up_.data() + at + i);
    if (thread == 0) exchange->Working();
  }
}

void SparseFfn::ListActive(int32_t thread, const SparseWeights& weights, const Input& input,
                           int64_t at, int64_t n) {
  const Activation activation = shard_->config().activation;
  const auto gated = activation == Activation::kSilu ? ops_->silu_mul : ops_->relu_mul;
  const int32_t* rows = fired_.data() + at;
  FfnCounts& counts = private_[thread].counts;
  uint64_t n_blocks = 0;
  for (int64_t t = 0; t < input.n_tokens; ++t) {
    const StepToken& token = input.tokens[t];
    const float* gate = gate_.data() + t * stride_ + at;
    float* up = up_.data() + t * stride_ + at;
    float* act = act_.data() + t * stride_ + at;
    if (activation == Activation::kReluRelu) {
      for (int64_t i = 0; i < n; ++i) up[i] = up[i] < 0.0f ? 0.0f : up[i];
    }
    gated(gate, up, n, act);
    const bool keeps_zeros = Fires(weights, token, 0.0f);
    Active& active = private_[thread].active[t];
    active.Clear();
    if (weights.down.has_planes) {
      // What fired for other tokens only is 0 here, whatever its up is.
      for (int64_t i = 0; i < n; ++i) act[i] = gate[i] == 0.0f ? 0.0f : act[i];
      AddBlocks(weights, keeps_zeros, rows, act, n, &active);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        if (gate[i] == 0.0f && !keeps_zeros) continue;
        active.rows.push_back(rows[i]);
        active.a.push_back(act[i]);
      }
    }
    n_blocks += active.blocks.size();
  }
  // Blocks that several tokens read are read once, or so, at most all of them.
  n_blocks = std::min(n_blocks, static_cast<uint64_t>(weights.down.n_blocks));
  counts.bytes += n_blocks * static_cast<uint64_t>(weights.down.plane_bytes);
}

// Quantizes as a whole block is, what is not among the rows being 0.
void SparseFfn::AddBlocks(const SparseWeights& weights, bool keeps_zeros, const int32_t* rows,
                          const float* values, int64_t n, Active* active) const {
  for (int64_t i = 0; i < n;) {
    const int32_t number = weights.places[rows[i]] / kBlockCols;
    float x[kBlockCols] = {};
    int64_t end = i;
    for (; end < n && weights.places[rows[end]] / kBlockCols == number; ++end) {
      x[weights.places[rows[end]] % kBlockCols] = values[end];
    }
    int8_t q[kBlockCols];
    kernels::ActiveBlock block = {};
    ops_->quantize(x, kBlockCols, q, &block.scale, &block.sum);
    block.block = number;
    block.begin = block.middle = static_cast<int32_t>(active->rows.size());
    for (; i < end; ++i) {
      const int64_t k = weights.places[rows[i]] % kBlockCols;
      if (q[k] == 0 && !keeps_zeros) continue;
      active->rows.push_back(rows[i]);
      active->q.push_back(q[k]);
      if (k < kBlockCols / 2) block.middle = static_cast<int32_t>(active->rows.size());
    }
    block.end = static_cast<int32_t>(active->rows.size());
    if (block.begin < block.end) active->blocks.push_back(block);
  }
}

void SparseFfn::Down(int32_t thread, const SparseWeights& weights, const Input& input,
                     Exchange* exchange, float* out) {
  const kernels::NeuronMatrix& down = weights.down;
  const int64_t n_cols = down.n_cols;
  const int64_t n_lines = RoundUp(n_cols, kernels::kLineColumns) / kernels::kLineColumns;
  const Team::Part lines = team_->PartOf(n_lines, thread);
  const int64_t first = lines.begin * kernels::kLineColumns;
  const int64_t last = std::min(lines.end * kernels::kLineColumns, n_cols);
  // One token: rows are read in one go. Several: some columns for all tokens, from near caches.
  const int64_t width = input.n_tokens == 1 ? n_cols : kernels::kLineColumns;
  for (int64_t begin = first; begin < last; begin += width) {
    const int64_t end = std::min(begin + width, last);
    for (int64_t t = 0; t < input.n_tokens; ++t) {
      float* sum = out + t * n_cols;
      std::fill(sum + begin, sum + end, 0.0f);
      for (const Private& other : private_) {
        const Active& active = other.active[t];
        if (down.has_planes) {
          ops_->add_blocks(down, active.blocks.data(), static_cast<int64_t>(active.blocks.size()),
                           active.rows.data(), active.q.data(), begin, end, sum);
        } else {
          ops_->add_rows(down, active.rows.data(), active.a.data(),
                         static_cast<int64_t>(active.rows.size()), begin, end, sum);
        }
      }
    }
    if (thread == 0) exchange->Working();
  }
}

// Some tenths of a second on the slowest level: so often is said that this rank works.
int64_t SparseFfn::RowsAtOnce(int64_t n_cols, int64_t n_tokens) {
  constexpr int64_t kMultiplicationsAtOnce = int64_t{1} << 26;
  const int64_t n = kMultiplicationsAtOnce / std::max<int64_t>(n_cols * n_tokens, 1);
  return std::max<int64_t>(n / kGroupRows, 1) * kGroupRows;
}

void SparseFfn::CollectCounts() {
  for (Private& own : private_) {
    for (size_t layer = 0; layer < own.layers.size(); ++layer) {
      counts_[layer].Add(own.layers[layer]);
      own.layers[layer] = {};
    }
  }
}

}  // namespace thermocline
