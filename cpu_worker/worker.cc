// Configuration, loading, serving, in this order.
#include "cpu_worker/worker.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <new>

#include "common/model/tensor_table.h"
#include "common/util/status_macros.h"
#include "common/util/version.h"
#include "common/worker/read_request.h"
#include "cpu_worker/isa_name.h"
#include "cpu_worker/measure.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr int32_t kMaxThreads = 4096;
constexpr int32_t kMaxContext = 1 << 24;
constexpr int64_t kMaxMeasureBytes = int64_t{64} << 30;

absl::Status CheckRange(const char* what, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} {} is not between {} and {}", what, value, min, max));
}

void FillTotals(const Forward::Totals& totals, worker::v1::StatsResponse* response) {
  response->set_steps(totals.steps);
  for (const FfnCounts& counts : totals.ffn) {
    worker::v1::FfnCounts* message = response->add_ffn();
    message->set_tokens(counts.tokens);
    message->set_neurons(counts.neurons);
    message->set_computed(counts.computed);
    message->set_fired(counts.fired);
    message->set_bytes(counts.bytes);
    message->set_missed(counts.missed);
    message->set_mass(counts.mass);
    message->set_missed_mass(counts.missed_mass);
  }
  const StepClock& clock = totals.clock;
  worker::v1::StepTimes* times = response->mutable_times();
  times->set_attention_ns(clock.nanoseconds(StepPart::kAttention));
  times->set_choose_ns(clock.nanoseconds(StepPart::kChoose));
  times->set_gate_ns(clock.nanoseconds(StepPart::kGate));
  times->set_up_ns(clock.nanoseconds(StepPart::kUp));
  times->set_down_ns(clock.nanoseconds(StepPart::kDown));
  times->set_exchange_ns(clock.nanoseconds(StepPart::kExchange));
  times->set_output_ns(clock.nanoseconds(StepPart::kOutput));
  times->set_other_ns(clock.nanoseconds(StepPart::kOther));
}

}  // namespace

absl::Status CpuWorker::Expect(Phase phase) const {
  if (phase_ == phase) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "calls come in this order: Configure, LoadShard, AttachSegment or Exchange");
}

// Each refers to those below it.
void CpuWorker::Drop() {
  forward_.reset();
  capture_.reset();
  cache_.reset();
  shard_.reset();
  team_.reset();
  file_.reset();
  predictor_file_.reset();
  carrier_.clear();
  phase_ = Phase::kNew;
}

absl::StatusOr<worker::v1::ConfigureResponse> CpuWorker::Configure(
    const worker::v1::ConfigureRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (phase_ == Phase::kServing) {
    return absl::FailedPreconditionError("this worker serves another coordinator at the moment");
  }
  Drop();
  absl::StatusOr<worker::v1::ConfigureResponse> response = SetUp(request);
  if (!response.ok()) Drop();
  return response;
}

absl::StatusOr<worker::v1::ConfigureResponse> CpuWorker::SetUp(
    const worker::v1::ConfigureRequest& request) {
  if (request.version() != kVersion) {
    return absl::FailedPreconditionError(
        fmt::format("this worker is version {}, the coordinator is version {}; both must be the "
                    "same",
                    kVersion, request.version()));
  }
  if (request.exchange_layout() != kExchangeLayout) {
    return absl::FailedPreconditionError(
        fmt::format("this worker's exchange has layout {}, the coordinator's has layout {}; build "
                    "both from the same source",
                    kExchangeLayout, request.exchange_layout()));
  }
  RETURN_IF_ERROR(CheckRange("n_threads", request.n_threads(), 1, kMaxThreads));
  RETURN_IF_ERROR(CheckRange("n_ctx", request.n_ctx(), 1, kMaxContext));
  RETURN_IF_ERROR(CheckRange("n_slots", request.n_slots(), 1, kMaxThreads));
  ASSIGN_OR_RETURN(const kernels::Isa isa, IsaFromName(request.isa()));
  ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(request.model_path()));
  if (file->ContentHash() != request.model_hash()) {
    return absl::FailedPreconditionError(
        fmt::format("{} is another model here: its hash is {}, the coordinator's is {}",
                    request.model_path(), file->ContentHash(), request.model_hash()));
  }
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(*file));
  RETURN_IF_ERROR(CheckTensors(*file, config));
  if (!request.hidden_activation().empty()) {
    ASSIGN_OR_RETURN(config.activation, ParseActivation(request.hidden_activation()));
  }
  ASSIGN_OR_RETURN(const ShardSpec spec, SpecFromRequest(request, config));
  ASSIGN_OR_RETURN(exchange_shape_, ShapeFromRequest(request, config));
  ASSIGN_OR_RETURN(const Predictor predictor, OpenPredictor(request, *file, config, spec));
  const GgufFile* of_predictor = predictor_file_ != nullptr ? predictor_file_.get() : file.get();
  ASSIGN_OR_RETURN(shard_, Shard::Create(file.get(), config, spec, of_predictor, &predictor));
  std::vector<int64_t> heads_per_layer;
  for (const ShardSpec::Layer& layer : spec.layers)
    heads_per_layer.push_back(layer.kv_heads.size());
  ASSIGN_OR_RETURN(
      cache_, KvCache::Create(heads_per_layer, request.n_slots(), request.n_ctx(), config.d_head,
                              request.f32_kv() ? kernels::KvType::kF32 : kernels::KvType::kF16));
  ops_ = &kernels::ops(isa);
  file_ = std::move(file);
  rank_ = request.rank();
  node_ = request.node();
  epoch_ = request.epoch();
  forward_options_ = {request.f32_activations(), request.measures_recall(),
                      exchange_shape_.max_tokens, exchange_shape_.max_logit_rows};
  team_ = std::make_unique<Team>(request.n_threads(), request.spin_us());
  // All that is computed is computed by the team, and what it touches first lies on its node.
  RETURN_IF_ERROR(team_->BindToNode(request.node()));
  phase_ = Phase::kConfigured;

  worker::v1::ConfigureResponse response;
  response.set_version(kVersion);
  response.set_isa(ops_->name);
  response.set_weight_bytes(shard_->weight_bytes());
  response.set_kv_bytes(cache_->n_bytes());
  response.set_node(request.node());
  response.set_pid(getpid());
  return response;
}

// An empty one when no layer is computed by it.
absl::StatusOr<Predictor> CpuWorker::OpenPredictor(const worker::v1::ConfigureRequest& request,
                                                   const GgufFile& model, const ModelConfig& config,
                                                   const ShardSpec& spec) {
  const auto predicts = [](const ShardSpec::Layer& layer) {
    return layer.mode == Sparsity::kPredict;
  };
  if (std::none_of(spec.layers.begin(), spec.layers.end(), predicts)) return Predictor();
  if (request.predictor_path().empty()) return PredictorOfModel(model, config);
  ASSIGN_OR_RETURN(predictor_file_, GgufFile::Open(request.predictor_path()));
  return ReadPredictor(*predictor_file_, config, request.model_hash());
}

absl::Status CpuWorker::LoadShard(const std::function<bool(int64_t, int64_t)>& on_progress) {
  std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(Expect(Phase::kConfigured));
  absl::Status status = shard_->Load(*team_, on_progress);
  if (status.ok()) status = MakeForward();
  if (!status.ok()) {
    Drop();
    return status;
  }
  file_.reset();
  predictor_file_.reset();
  phase_ = Phase::kLoaded;
  return absl::OkStatus();
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

absl::Status CpuWorker::StartServing(const std::string& carrier) {
  std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(Expect(Phase::kLoaded));
  phase_ = Phase::kServing;
  carrier_ = carrier;
  return absl::OkStatus();
}

absl::Status CpuWorker::Serve(Exchange& exchange) {
  const absl::Status end = forward_->Serve(exchange);
  std::lock_guard<std::mutex> lock(mutex_);
  Drop();
  return end;
}

absl::StatusOr<std::unique_ptr<ReadTest>> CpuWorker::PrepareReadTest(int64_t buffer_bytes) const {
  RETURN_IF_ERROR(CheckRange("buffer_bytes", buffer_bytes, 1 << 20, kMaxMeasureBytes));
  std::unique_lock<std::mutex> lock(mutex_);
  if (phase_ == Phase::kNew) return Expect(Phase::kConfigured);
  const int32_t n_threads = team_->size();
  const int32_t node = node_;
  const kernels::Ops* ops = ops_;
  lock.unlock();
  return CpuReadTest::Create(n_threads, node, ops, buffer_bytes);
}

absl::StatusOr<worker::v1::StartCaptureResponse> CpuWorker::StartCapture(
    const worker::v1::StartCaptureRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  // A stream that the coordinator has opened may not have arrived yet.
  if (phase_ != Phase::kLoaded) RETURN_IF_ERROR(Expect(Phase::kServing));
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
      return absl::InvalidArgumentError(
          fmt::format("rank {} has no neurons of layer {}, and so no input of them", rank_, layer));
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
  std::lock_guard<std::mutex> lock(mutex_);
  if (capture_ == nullptr) return absl::FailedPreconditionError("no capture was started");
  RETURN_IF_ERROR(CheckRange("layer", layer, 0, shard_->config().n_layers - 1));
  return capture_;
}

worker::v1::StatsResponse CpuWorker::Stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  worker::v1::StatsResponse response;
  response.set_rank(rank_);
  response.set_pid(getpid());
  if (phase_ == Phase::kNew) return response;
  response.set_carrier(carrier_);
  const auto begin = reinterpret_cast<uintptr_t>(shard_->arena().data());
  worker::v1::StatsResponse::AddressRange* range = response.add_weight_ranges();
  range->set_begin(begin);
  range->set_end(begin + shard_->arena().size());
  response.set_weight_bytes(shard_->weight_bytes());
  response.set_kv_bytes(cache_->n_bytes());
  response.set_token_bytes(shard_->token_bytes());
  response.set_n_threads(team_->size());
  response.set_isa(ops_->name);
  if (forward_ != nullptr) FillTotals(forward_->totals(), &response);
  return response;
}

}  // namespace thermocline
