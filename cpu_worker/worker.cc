// Set-up, loading, captures, what it says of itself.
#include "cpu_worker/worker.h"

#include <algorithm>
#include <limits>
#include <new>

#include "common/util/status_macros.h"
#include "cpu_worker/isa_name.h"
#include "cpu_worker/measure.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxMeasureBytes = int64_t{64} << 30;

void FillTotals(const Forward::Totals& totals, worker::v1::StatsResponse* response) {
  response->set_steps(totals.steps);
  AddFfnCounts(totals.ffn, response);
  const auto ns = [&](TraceOp op) { return totals.op_ns[static_cast<int>(op)]; };
  worker::v1::StepTimes* times = response->mutable_times();
  times->set_attention_ns(ns(TraceOp::kAttention));
  times->set_choose_ns(ns(TraceOp::kChoose));
  times->set_gate_ns(ns(TraceOp::kGate));
  times->set_up_ns(ns(TraceOp::kUp));
  times->set_down_ns(ns(TraceOp::kDown));
  times->set_exchange_ns(ns(TraceOp::kWait) + ns(TraceOp::kAdd));
  times->set_output_ns(ns(TraceOp::kOutput));
  times->set_other_ns(ns(TraceOp::kOther));
}

absl::StatusOr<kernels::KvType> KvTypeOf(const worker::v1::ConfigureRequest& request) {
  if (request.kv_type() == "f16") return kernels::KvType::kF16;
  if (request.kv_type() == "f32") return kernels::KvType::kF32;
  const bool holds_none = std::all_of(request.layers().begin(), request.layers().end(),
                                      [](const worker::v1::LayerShard& layer) {
                                        return layer.kv_heads().begin() == layer.kv_heads().end();
                                      });
  if (request.kv_type() == "q8_0" && holds_none) return kernels::KvType::kF16;
  return absl::UnimplementedError(fmt::format(
      "a CPU rank's KV cache is f16 or f32, not {}, and this one holds attention heads; "
      "take --kv-type f16",
      request.kv_type()));
}

}  // namespace

// Each refers to those below it.
void CpuWorker::Drop() {
  forward_.reset();
  capture_.reset();
  cache_.reset();
  shard_.reset();
  team_.reset();
}

absl::StatusOr<worker::v1::ConfigureResponse> CpuWorker::SetUp(
    const worker::v1::ConfigureRequest& request, const OpenedModel& model) {
  if (!request.device().empty()) {
    return absl::InvalidArgumentError(
        fmt::format("this is a CPU worker; {} is a GPU worker's to compute on", request.device()));
  }
  ASSIGN_OR_RETURN(const kernels::KvType kv_type, KvTypeOf(request));
  ASSIGN_OR_RETURN(const kernels::Isa isa, IsaFromName(request.isa()));
  ASSIGN_OR_RETURN(shard_, Shard::Create(model.file.get(), model.config, model.spec,
                                         model.of_predictor(), &model.predictor));
  const int64_t n_ctx = request.n_ctx(), tail_begin = model.exchange_shape.tail.begin;
  ASSIGN_OR_RETURN(cache_, KvCache::Create(KvCache::SizesOf(model.spec, n_ctx, tail_begin),
                                           request.n_slots(), model.config.d_head, kv_type));
  ops_ = &kernels::ops(isa);
  node_ = request.node();
  forward_options_ = {request.f32_activations(),
                      request.measures_recall(),
                      model.exchange_shape.max_tokens,
                      model.exchange_shape.max_logit_rows,
                      n_ctx,
                      tail_begin,
                      trace(),
                      model.spec.stream_tokens};
  team_ = std::make_unique<Team>(request.n_threads(), request.spin_us());
  // All that is computed is computed by the team, and what it touches first lies on its node.
  RETURN_IF_ERROR(team_->BindToNode(request.node()));

  worker::v1::ConfigureResponse response;
  response.set_isa(ops_->name);
  response.set_weight_bytes(shard_->weight_bytes());
  response.set_kv_bytes(cache_->n_bytes());
  response.set_node(request.node());
  return response;
}

absl::Status CpuWorker::Load(const std::function<bool(int64_t, int64_t)>& on_progress) {
  RETURN_IF_ERROR(shard_->Load(*team_, on_progress));
  return MakeForward();
}

absl::Status CpuWorker::MakeForward() {
  absl::Status status;
  team_->Run([&](int32_t thread) {
    if (thread != 0) return;
    try {
      forward_ = std::make_unique<Forward>(shard_.get(), cache_.get(), ops_, team_.get(),
                                           forward_options_);
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError(
          fmt::format("no memory for the activations of {} tokens; a smaller --batch-size needs "
                      "less",
                      forward_options_.max_tokens));
    }
  });
  return status;
}

absl::Status CpuWorker::RunSteps(Exchange& exchange) { return forward_->Serve(exchange); }

absl::StatusOr<std::unique_ptr<ReadTest>> CpuWorker::PrepareReadTest(int64_t buffer_bytes) const {
  RETURN_IF_ERROR(CheckRange("buffer_bytes", buffer_bytes, 1 << 20, kMaxMeasureBytes));
  std::unique_lock<std::mutex> lock(mutex());
  if (phase() == Phase::kNew) return Expect(Phase::kConfigured);
  const int32_t n_threads = team_->size();
  const int32_t node = node_;
  const kernels::Ops* ops = ops_;
  lock.unlock();
  return CpuReadTest::Create(n_threads, node, ops, buffer_bytes);
}

absl::StatusOr<worker::v1::StartCaptureResponse> CpuWorker::StartCapture(
    const worker::v1::StartCaptureRequest& request) {
  std::lock_guard<std::mutex> lock(mutex());
  // A stream that the coordinator has opened may not have arrived yet.
  if (phase() != Phase::kLoaded) RETURN_IF_ERROR(Expect(Phase::kServing));
  constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();  // what a count can hold
  RETURN_IF_ERROR(CheckRange("n_tokens", request.n_tokens(), 1, kMaxTokens));
  RETURN_IF_ERROR(CheckRange("n_samples", request.n_samples(), 0, request.n_tokens()));
  const ModelConfig& config = shard_->config();
  Capture::Options options = {.d_model = config.d_model,
                              .n_counted = {},
                              .sampled = {},
                              .n_tokens = request.n_tokens(),
                              .n_samples = request.n_samples()};
  for (const LayerWeights& layer : shard_->layers()) {
    options.n_counted.push_back(IsRelu(config.activation) ? layer.n_neurons : 0);
  }
  for (const int32_t layer : request.layers()) {
    const int64_t last = options.sampled.empty() ? -1 : options.sampled.back();
    RETURN_IF_ERROR(CheckRange("layer", layer, last + 1, config.n_layers - 1));
    if (shard_->layers()[layer].n_neurons == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "rank {} has no neurons of layer {}, and so no input of them", rank(), layer));
    }
    options.sampled.push_back(layer);
  }
  forward_->SetCapture(nullptr);  // gives its memory back, unless it is being read
  capture_.reset();
  ASSIGN_OR_RETURN(capture_, Capture::Create(options));
  forward_->SetCapture(capture_);
  worker::v1::StartCaptureResponse response;
  response.set_n_bytes(capture_->n_bytes());
  return response;
}

absl::StatusOr<std::shared_ptr<const CaptureView>> CpuWorker::ReadCapture(int32_t layer) const {
  std::lock_guard<std::mutex> lock(mutex());
  if (capture_ == nullptr) return absl::FailedPreconditionError("no capture was started");
  RETURN_IF_ERROR(CheckRange("layer", layer, 0, shard_->config().n_layers - 1));
  return capture_;
}

void CpuWorker::FillStats(worker::v1::StatsResponse* response) const {
  const auto begin = reinterpret_cast<uintptr_t>(shard_->arena().data());
  worker::v1::StatsResponse::AddressRange* range = response->add_weight_ranges();
  range->set_begin(begin);
  range->set_end(begin + shard_->arena().size());
  response->set_weight_bytes(shard_->weight_bytes());
  response->set_kv_bytes(cache_->n_bytes());
  response->set_token_bytes(shard_->token_bytes());
  response->set_n_threads(team_->size());
  response->set_isa(ops_->name);
  if (forward_ != nullptr) FillTotals(forward_->totals(), response);
}

}  // namespace thermocline
