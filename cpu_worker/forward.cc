// The step: inputs, norms, feed-forward layers, exchanges, logits. Attention is attention.cc.
#include "cpu_worker/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/model/rope.h"
#include "common/util/check.h"
#include "common/worker/check_step.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows of a product's output, whole groups.
int64_t PaddedRows(int64_t n_rows) { return RoundUp(n_rows, 2 * kernels::kGroupRows); }

}  // namespace

Forward::Forward(const Shard* shard, KvCache* cache, const kernels::Ops* ops, Team* team,
                 const Options& options)
    : shard_(shard),
      cache_(cache),
      ops_(ops),
      team_(team),
      options_(options),
      config_(shard->config()),
      clock_(options.trace),
      sparse_ffn_(shard, ops, team, &clock_,
                  {options.f32_activations, options.measures_recall, options.max_tokens}) {
  int64_t max_kv_heads = 0, max_neurons = 0;  // neurons of layers that are computed in full
  int64_t max_own_heads = 0, max_sharing_heads = 0;
  bool has_residual = false;
  for (const LayerWeights& layer : shard->layers()) {
    const int64_t n_kv_heads = std::max(layer.kv_heads.size(), layer.tail_heads.size());
    max_kv_heads = std::max(max_kv_heads, n_kv_heads);
    max_own_heads = std::max(max_own_heads, layer.kv_heads.size() * config_.group_size());
    if (SharesContext(n_kv_heads)) {
      max_sharing_heads = std::max(max_sharing_heads, n_kv_heads * config_.group_size());
    }
    if (layer.sparse == nullptr) max_neurons = std::max(max_neurons, layer.n_neurons);
    has_residual =
        has_residual || (layer.sparse != nullptr && layer.sparse->predictor_reads_residual);
  }
  const int64_t max_tokens = options.max_tokens;
  const int64_t max_heads = max_kv_heads * config_.group_size();
  const int64_t state_size = 2 + config_.d_head;
  inverse_frequency_ = RopeFrequencies(config_, shard->rope_factors());
  cos_.resize(max_tokens * config_.n_rot / 2);
  sin_.resize(max_tokens * config_.n_rot / 2);
  h_.resize(max_tokens * config_.d_model);
  input_.Allocate(max_tokens, config_.d_model);
  attention_.Allocate(max_tokens, max_own_heads * config_.d_head);
  neurons_.Allocate(max_tokens, max_neurons);
  q_stride_ = PaddedRows(max_heads * config_.d_head);
  kv_stride_ = PaddedRows(max_kv_heads * config_.d_head);
  neuron_stride_ = PaddedRows(max_neurons);
  vocab_stride_ = PaddedRows(shard->vocab().size());
  q_.resize(max_tokens * q_stride_);
  k_.resize(max_tokens * kv_stride_);
  v_.resize(max_tokens * kv_stride_);
  gate_.resize(max_tokens * neuron_stride_);
  up_.resize(max_tokens * neuron_stride_);
  down_.resize(max_tokens * config_.d_model);
  logits_.resize(options.max_logit_rows * vocab_stride_);
  const int64_t max_tiles = (options.n_ctx + kernels::kAttentionTile - 1) / kernels::kAttentionTile;
  tile_partials_.resize(max_sharing_heads * max_tiles * state_size);
  private_.resize(team->size());
  for (Private& own : private_) {
    own.h.resize(config_.d_model);
    own.input.Allocate(1, std::max(config_.d_model, attention_.width()));
    own.partials.resize(state_size);
    own.state.resize(state_size);
    own.best.resize(options.max_logit_rows);
    if (has_residual) own.residual.Allocate(1, config_.d_model);
  }
  if (has_residual) residual_.Allocate(max_tokens, config_.d_model);
  totals_.ffn.resize(config_.n_layers);
}

absl::Status Forward::Serve(Exchange& exchange) {
  exchange_ = &exchange;
  failed_ = false;
  status_ = absl::OkStatus();
  team_->Run([&](int32_t thread) {
    for (;;) {
      team_->Sync(thread, [&] { BeginStep(); });
      if (failed_) return;
      RunStep(thread);
      if (failed_) return;
    }
  });
  if (capture_ != nullptr) capture_->EndStep();
  return absl::IsCancelled(status_) ? absl::OkStatus() : status_;
}

void Forward::BeginStep() {
  absl::StatusOr<Step> step = exchange_->NextStep();
  status_ = step.status();
  if (step.ok()) {
    step_ = *step;
    tokens_.assign(step->tokens.begin(), step->tokens.end());
    status_ = CheckStep(
        step_, tokens_,
        {options_.max_tokens, options_.max_logit_rows, cache_->n_slots(), options_.n_ctx});
  }
  failed_ = !status_.ok();
  if (failed_) return;
  {
    std::lock_guard<std::mutex> lock(totals_mutex_);
    capture_ = next_capture_;
  }
  if (capture_ != nullptr) capture_->BeginStep(step_.n_tokens());
  clock_.StartStep(step_.number);
  n_tokens_ = step_.n_tokens();
  logit_tokens_.assign(step_.n_logit_rows, -1);
  for (int64_t token = 0; token < n_tokens_; ++token) {
    const int32_t row = tokens_[token].logit_row;
    if (row >= 0) logit_tokens_[row] = static_cast<int32_t>(token);
  }
}

void Forward::RunStep(int32_t thread) {
  LoadInputs(thread);
  for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
    AttentionLayer(thread, layer);
    if (failed_) return;
    FfnLayer(thread, layer);
    if (failed_) return;
  }
  OutputLogits(thread);
}

float* Forward::h(int32_t thread, int64_t token) {
  return one_token() ? private_[thread].h.data() : h_.data() + token * config_.d_model;
}

void Forward::LoadInputs(int32_t thread) {
  const int64_t d_model = config_.d_model;
  const int64_t n_pairs = config_.n_rot / 2;
  const Team::Part tokens = TokensOf(thread);
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    std::memcpy(h_.data() + token * d_model, step_.x + token * d_model, d_model * sizeof(float));
    RopeAngles(inverse_frequency_, tokens_[token].position, cos_.data() + token * n_pairs,
               sin_.data() + token * n_pairs);
  }
  if (one_token()) std::memcpy(private_[thread].h.data(), step_.x, d_model * sizeof(float));
}

Activations& Forward::PrepareInput(int32_t thread, const float* norm) {
  const int64_t d_model = config_.d_model;
  const Team::Part tokens = one_token() ? Team::Part{0, 1} : TokensOf(thread);
  Activations& input = one_token() ? private_[thread].input : input_;
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    ops_->rms_norm(h(thread, token), norm, d_model, config_.norm_eps, input.row(token));
    if (!options_.f32_activations) input.Quantize(*ops_, token, 0, d_model);
  }
  if (!one_token()) team_->Sync(thread);
  return input;
}

Activations& Forward::QuantizeShared(int32_t thread, Activations& shared) {
  if (options_.f32_activations) return shared;
  if (one_token()) {
    Activations& own = private_[thread].input;
    std::memcpy(own.row(0), shared.row(0), shared.width() * sizeof(float));
    own.Quantize(*ops_, 0, 0, shared.width());
    return own;
  }
  const Team::Part tokens = TokensOf(thread);
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    shared.Quantize(*ops_, token, 0, shared.width());
  }
  team_->Sync(thread);
  return shared;
}

bool Forward::WantsInt8(const kernels::PackedMatrix& weights) const {
  return !options_.f32_activations && !type_info(weights.type)->is_float;
}

void Forward::Product(int32_t thread, const kernels::PackedMatrix& weights,
                      const Activations& input, int64_t column, int64_t n_inputs, float* out,
                      int64_t out_stride) {
  const Team::Part groups = GroupsOf(*team_, weights, thread);
  // Some tenths of a second on the slowest level: so often is said that this rank works.
  constexpr int64_t kMultiplicationsAtOnce = int64_t{1} << 26;
  const int64_t per_group = kernels::kGroupRows * std::max<int64_t>(weights.n_cols * n_inputs, 1);
  const int64_t n_at_once = std::max<int64_t>(kMultiplicationsAtOnce / per_group, 1);
  for (int64_t begin = groups.begin; begin < groups.end; begin += n_at_once) {
    const int64_t end = std::min(begin + n_at_once, groups.end);
    float* first = out + begin * kernels::kGroupRows;
    if (WantsInt8(weights)) {
      ops_->matmul_int8(weights, begin, end, input.quantized(column), n_inputs, first, out_stride);
    } else {
      ops_->matmul_f32(weights, begin, end, input.f32(column), input.width(), n_inputs, first,
                       out_stride);
    }
    if (thread == 0) exchange_->Working();
  }
}

void Forward::FfnLayer(int32_t thread, int64_t layer) {
  const LayerWeights& weights = shard_->layers()[layer];
  const bool has_partial = weights.n_neurons > 0 && ComputesNeurons();
  if (has_partial && weights.sparse == nullptr) DenseFfn(thread, layer);
  if (has_partial && weights.sparse != nullptr) RunSparseFfn(thread, layer);
  Combine(thread, has_partial);
}

void Forward::TakeSamples(int32_t thread, int64_t layer, Activations& input) {
  if (capture_ == nullptr) return;
  const Team::Part tokens = TokensOf(thread);
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    capture_->Take(layer, token, input.row(token));
  }
}

void Forward::DenseFfn(int32_t thread, int64_t layer) {
  const LayerWeights& weights = shard_->layers()[layer];
  Activations& input = PrepareInput(thread, weights.ffn_norm);
  TakeSamples(thread, layer, input);
  clock_.Mark(thread, TraceOp::kOther);
  const Team::Part groups = GroupsOf(*team_, weights.gate, thread);
  Product(thread, weights.gate, input, 0, n_tokens_, gate_.data(), neuron_stride_);
  clock_.Mark(thread, TraceOp::kGate);
  Product(thread, weights.up, input, 0, n_tokens_, up_.data(), neuron_stride_);
  // This thread's own neurons: whole blocks of 32, so they are quantized here, too.
  const int64_t begin = groups.begin * kernels::kGroupRows;
  const int64_t end = std::min(groups.end * kernels::kGroupRows, weights.n_neurons);
  const auto gated = config_.activation == Activation::kSilu ? ops_->silu_mul : ops_->relu_mul;
  uint32_t* fired = capture_ != nullptr ? capture_->fired(layer) : nullptr;
  for (int64_t token = 0; fired != nullptr && token < n_tokens_; ++token) {
    const float* gate = gate_.data() + token * neuron_stride_;
    for (int64_t i = begin; i < end; ++i) fired[i] += !(gate[i] <= 0.0f);
  }
  for (int64_t token = 0; begin < end && token < n_tokens_; ++token) {
    const int64_t at = token * neuron_stride_ + begin;
    if (config_.activation == Activation::kReluRelu) {
      for (int64_t i = at; i < at + end - begin; ++i) up_[i] = up_[i] < 0.0f ? 0.0f : up_[i];
    }
    gated(gate_.data() + at, up_.data() + at, end - begin, neurons_.row(token) + begin);
    if (!options_.f32_activations) neurons_.Quantize(*ops_, token, begin, end);
  }
  clock_.Mark(thread, TraceOp::kUp);
  team_->Sync(thread);
  DownProduct(thread, weights, exchange_->Partial());
  clock_.Mark(thread, TraceOp::kDown);
}

void Forward::RunSparseFfn(int32_t thread, int64_t layer) {
  const LayerWeights& weights = shard_->layers()[layer];
  const int64_t d_model = config_.d_model;
  const Team::Part tokens = one_token() ? Team::Part{0, 1} : TokensOf(thread);
  Activations& residual = one_token() ? private_[thread].residual : residual_;
  if (weights.sparse->predictor_reads_residual) {
    for (int64_t token = tokens.begin; token < tokens.end; ++token) {
      std::memcpy(residual.row(token), h(thread, token), d_model * sizeof(float));
      residual.Quantize(*ops_, token, 0, d_model);
    }
  }
  Activations& input = PrepareInput(thread, weights.ffn_norm);
  TakeSamples(thread, layer, input);
  // A sketch reads int8 also where products read f32.
  if (options_.f32_activations && weights.sparse->mode == Sparsity::kSketch) {
    for (int64_t token = tokens.begin; token < tokens.end; ++token) {
      input.Quantize(*ops_, token, 0, d_model);
    }
    if (!one_token()) team_->Sync(thread);
  }
  clock_.Mark(thread, TraceOp::kOther);
  uint32_t* fired = capture_ != nullptr ? capture_->fired(layer) : nullptr;
  sparse_ffn_.Run(thread, layer,
                  {&input, &residual, tokens_.data(), n_tokens_, fired, exchange_->choices()},
                  exchange_, exchange_->Partial());
}

void Forward::DownProduct(int32_t thread, const LayerWeights& weights, float* out) {
  const int64_t d_model = config_.d_model;
  int64_t column = 0;
  for (const kernels::PackedMatrix& down : weights.down) {
    const Team::Part groups = GroupsOf(*team_, down, thread);
    const bool is_first = column == 0;
    Product(thread, down, neurons_, column, n_tokens_, is_first ? out : down_.data(), d_model);
    const int64_t begin = groups.begin * kernels::kGroupRows;
    const int64_t n_rows = groups.end * kernels::kGroupRows - begin;
    for (int64_t token = 0; !is_first && token < n_tokens_; ++token) {
      float* sum = out + token * d_model + begin;
      ops_->add(sum, down_.data() + token * d_model + begin, n_rows, sum);
    }
    column += down.n_cols;
  }
}

void Forward::Combine(int32_t thread, bool has_partial) {
  team_->Sync(thread, [&] {
    if (!has_partial) exchange_->NoPartial();
    Keep(exchange_->Arrive());
  });
  if (failed_) return;
  clock_.Mark(thread, TraceOp::kWait);
  if (exchange_->sliced()) {
    const int64_t first = exchange_->slice_begin();
    const Team::Part part = team_->PartOf(exchange_->slice_end() - first, thread);
    exchange_->AddSlice(h_.data(), first + part.begin, first + part.end);
    clock_.Mark(thread, TraceOp::kAdd);
    team_->Sync(thread, [&] { Keep(exchange_->ArriveSlices()); });
    if (failed_) return;
    clock_.Mark(thread, TraceOp::kWait);
  }
  const int64_t d_model = config_.d_model;
  if (one_token()) {
    exchange_->Collect(private_[thread].h.data(), 0, d_model);
  } else {
    const Team::Part tokens = TokensOf(thread);
    exchange_->Collect(h_.data(), tokens.begin * d_model, tokens.end * d_model);
  }
  clock_.Mark(thread, TraceOp::kAdd);
}

void Forward::Meet(int32_t thread) {
  team_->Sync(thread, [&] { Keep(exchange_->Meet()); });
  clock_.Mark(thread, TraceOp::kWait);
}

void Forward::OutputLogits(int32_t thread) {
  const int64_t n_rows = static_cast<int64_t>(logit_tokens_.size());
  const kernels::PackedMatrix& output = shard_->output();
  clock_.StartLayer(thread, -1);
  if (n_rows > 0 && output.n_rows > 0) {
    // Only tokens whose logits are wanted; their rows are packed together in the input.
    const Team::Part rows = one_token() ? Team::Part{0, 1} : team_->PartOf(n_rows, thread);
    if (!one_token()) team_->Sync(thread);  // h of a row's token may be another thread's
    Activations& input = one_token() ? private_[thread].input : input_;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      ops_->rms_norm(h(thread, logit_tokens_[row]), shard_->output_norm(), config_.d_model,
                     config_.norm_eps, input.row(row));
      if (!options_.f32_activations) input.Quantize(*ops_, row, 0, config_.d_model);
    }
    if (!one_token()) team_->Sync(thread);
    const Team::Part groups = GroupsOf(*team_, output, thread);
    Product(thread, output, input, 0, n_rows, logits_.data(), vocab_stride_);
    const int64_t begin = groups.begin * kernels::kGroupRows;
    const int64_t end = std::min(groups.end * kernels::kGroupRows, output.n_rows);
    LeaveLogits(thread, begin, end);
  }
  clock_.Mark(thread, TraceOp::kOutput);
  team_->Sync(thread, [&] {
    if (step_.wants_best_only && output.n_rows > 0) LeaveCandidates();
    FinishStep();
  });
}

void Forward::LeaveLogits(int32_t thread, int64_t begin, int64_t end) {
  const int64_t n = end - begin;  // may be negative: threads may outnumber groups of rows
  for (int32_t row = 0; row < step_.n_logit_rows; ++row) {
    const float* logits = logits_.data() + row * vocab_stride_ + begin;
    if (step_.wants_best_only) {
      private_[thread].best[row] = BestOf(logits, n, shard_->vocab().begin + begin);
    } else if (n > 0) {
      std::memcpy(exchange_->Logits(row) + begin, logits, n * sizeof(float));
    }
  }
}

void Forward::LeaveCandidates() {
  for (int32_t row = 0; row < step_.n_logit_rows; ++row) {
    LogitCandidate best;
    for (const Private& own : private_) {
      if (Beats(own.best[row], best)) best = own.best[row];
    }
    exchange_->Candidates()[row] = best;
  }
}

void Forward::FinishStep() {
  if (capture_ != nullptr) capture_->EndStep();
  sparse_ffn_.CollectCounts();
  clock_.EndStep();
  {  // before the coordinator goes on: it may ask at once
    std::lock_guard<std::mutex> lock(totals_mutex_);
    ++totals_.steps;
    totals_.ffn = sparse_ffn_.counts();
    totals_.op_ns = clock_.op_ns();
  }
  Keep(exchange_->FinishStep());
}

void Forward::SetCapture(std::shared_ptr<Capture> capture) {
  std::lock_guard<std::mutex> lock(totals_mutex_);
  next_capture_ = std::move(capture);
}

Forward::Totals Forward::totals() const {
  std::lock_guard<std::mutex> lock(totals_mutex_);
  return totals_;
}

}  // namespace thermocline
