// Builds ranks as a worker does, and drives them as the coordinator does.
#include "tests/testing/mini_fleet.h"

#include <algorithm>
#include <cmath>

#include "common/gguf/dequantize.h"
#include "common/model/tensor_table.h"
#include "common/plan/decided_neurons.h"
#include "common/util/status_macros.h"
#include "tests/testing/dense_plan.h"

namespace thermocline::testing {

absl::StatusOr<Plan> MakePlan(const GgufFile& file, const std::vector<double>& shares,
                              int32_t n_threads) {
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(file));
  RankPlan rank;
  rank.n_threads = n_threads;
  const std::vector<RankPlan> ranks(shares.size(), rank);
  return SplitDense(config, file.ContentHash(), ranks, shares);
}

absl::StatusOr<std::unique_ptr<MiniFleet>> MiniFleet::Create(const GgufFile* file, const Plan& plan,
                                                             const MiniFleetOptions& options) {
  std::unique_ptr<MiniFleet> fleet(new MiniFleet());
  fleet->file_ = file;
  fleet->options_ = options;
  ASSIGN_OR_RETURN(fleet->config_, ReadModelConfig(*file));
  const ModelConfig& config = fleet->config_;
  RETURN_IF_ERROR(CheckTensors(*file, config));
  RETURN_IF_ERROR(CheckPlan(plan, config, file->ContentHash(), options.profile));
  RETURN_IF_ERROR(fleet->OpenPredictor(plan));
  ExchangeShape shape;
  shape.n_ranks = plan.n_ranks();
  shape.max_tokens = static_cast<int32_t>(options.batch_size);
  shape.d_model = static_cast<int32_t>(config.d_model);
  shape.n_layers = static_cast<int32_t>(config.n_layers);
  shape.n_vocab = static_cast<int32_t>(config.n_vocab);
  shape.max_logit_rows = static_cast<int32_t>(options.max_logit_rows);
  if (plan.gpu_ctx > 0) {
    shape.tail = {static_cast<int32_t>(plan.gpu_ctx), static_cast<int32_t>(config.n_heads),
                  static_cast<int32_t>(config.n_kv_heads), static_cast<int32_t>(config.d_head)};
  }
  shape.n_choices = static_cast<int32_t>(MaxChoices(plan));
  ASSIGN_OR_RETURN(fleet->segment_, Segment::Create(shape, /*epoch=*/7, options.spin_us));
  fleet->driver_ = std::make_unique<StepDriver>(fleet->segment_.get());
  for (int32_t i = 0; i < plan.n_ranks(); ++i) {
    auto rank = std::make_unique<Rank>();
    ShardSpec spec = SpecOfRank(plan, i, options.profile);
    spec.f32_activations = options.f32_activations;
    for (size_t l = 0; l < spec.layers.size(); ++l) {
      spec.layers[l].threshold =
          options.predictor != nullptr ? options.predictor->layers[l].threshold : options.threshold;
    }
    RETURN_IF_ERROR(plan.ranks[i].kind == RankKind::kGpu
                        ? fleet->MakeGpuRank(spec, rank.get())
                        : fleet->MakeCpuRank(plan.ranks[i], spec, rank.get()));
    rank->exchange = std::make_unique<ShmExchange>(fleet->segment_.get(), i,
                                                   static_cast<int32_t>(spec.vocab.begin));
    fleet->ranks_.push_back(std::move(rank));
  }
  for (const auto& rank : fleet->ranks_) {
    rank->thread = std::thread([rank = rank.get(), segment = fleet->segment_.get()] {
      if (rank->device_forward != nullptr)
        rank->end = rank->device_forward->Prepare(*rank->exchange);
      if (rank->end.ok()) {
        rank->end = rank->forward != nullptr ? rank->forward->Serve(*rank->exchange)
                                             : rank->device_forward->Serve(*rank->exchange);
      }
      if (!rank->end.ok()) segment->Stop(StopReason::kFailed);
    });
  }
  return fleet;
}

absl::Status MiniFleet::OpenPredictor(const Plan& plan) {
  if (options_.predictor != nullptr) {
    predictor_ = *options_.predictor;
  } else {
    options_.predictor_file = file_;
    const bool predicts =
        std::any_of(plan.layers.begin(), plan.layers.end(),
                    [](const LayerPlan& layer) { return layer.mode == Sparsity::kPredict; });
    if (!predicts) return absl::OkStatus();
    ASSIGN_OR_RETURN(predictor_, PredictorOfModel(*file_, config_));
  }
  return absl::OkStatus();
}

absl::Status MiniFleet::MakeCpuRank(const RankPlan& plan, const ShardSpec& spec, Rank* rank) {
  rank->team = std::make_unique<Team>(plan.n_threads, options_.spin_us);
  ASSIGN_OR_RETURN(rank->shard,
                   Shard::Create(file_, config_, spec, options_.predictor_file, &predictor_));
  RETURN_IF_ERROR(rank->shard->Load(*rank->team, [](int64_t, int64_t) { return true; }));
  const int64_t tail_begin = segment_->shape().tail.begin;
  ASSIGN_OR_RETURN(rank->cache, KvCache::Create(KvCache::SizesOf(spec, options_.n_ctx, tail_begin),
                                                /*n_slots=*/1, config_.d_head,
                                                options_.f32_kv ? kernels::KvType::kF32
                                                                : kernels::KvType::kF16));
  rank->forward = std::make_unique<Forward>(
      rank->shard.get(), rank->cache.get(), &kernels::ops(options_.isa), rank->team.get(),
      Forward::Options{options_.f32_activations, options_.measures_recall, options_.batch_size,
                       options_.max_logit_rows, options_.n_ctx, tail_begin,
                       /*trace=*/nullptr, spec.stream_tokens});
  return absl::OkStatus();
}

absl::Status MiniFleet::MakeGpuRank(const ShardSpec& spec, Rank* rank) {
  const DeviceForward::Options options = {options_.batch_size, options_.max_logit_rows,
                                          /*n_slots=*/1, options_.n_ctx,
                                          segment_->shape().tail.begin};
  rank->device = OpenEmulatedDevice(options_.device);
  ASSIGN_OR_RETURN(
      rank->device_shard,
      DeviceShard::Create(file_, config_, spec,
                          {1, options.device_ctx(),
                           DeviceLayers::WorkspaceBytes(config_, spec, options, &predictor_), 0,
                           options_.device_kv_type},
                          rank->device.get(), options_.predictor_file, &predictor_));
  RETURN_IF_ERROR(rank->device_shard->Load([](int64_t, int64_t) { return true; }));
  ASSIGN_OR_RETURN(rank->device_forward,
                   DeviceForward::Create(rank->device_shard.get(), rank->device.get(), options));
  return absl::OkStatus();
}

MiniFleet::~MiniFleet() { Stop(); }

std::vector<absl::Status> MiniFleet::Stop() {
  std::vector<absl::Status> ends;
  if (segment_ != nullptr) segment_->Stop(StopReason::kShutdown);
  for (const auto& rank : ranks_) {
    if (rank->thread.joinable()) rank->thread.join();
    ends.push_back(rank->end);
  }
  return ends;
}

absl::StatusOr<std::vector<float>> MiniFleet::Run(const std::vector<int32_t>& tokens,
                                                  int64_t n_past, int64_t step_tokens) {
  std::vector<float> logits;
  RETURN_IF_ERROR(
      RunSteps(tokens, n_past, step_tokens, /*wants_best_only=*/false, [&](int32_t row) {
        const float* values = driver_->logits(row);
        logits.insert(logits.end(), values, values + config_.n_vocab);
      }));
  return logits;
}

absl::StatusOr<std::vector<int32_t>> MiniFleet::RunForBest(const std::vector<int32_t>& tokens,
                                                           int64_t n_past, int64_t step_tokens) {
  std::vector<int32_t> best;
  RETURN_IF_ERROR(RunSteps(tokens, n_past, step_tokens, /*wants_best_only=*/true,
                           [&](int32_t row) { best.push_back(driver_->best(row).token); }));
  return best;
}

absl::Status MiniFleet::RunSteps(const std::vector<int32_t>& tokens, int64_t n_past,
                                 int64_t step_tokens, bool wants_best_only,
                                 const std::function<void(int32_t)>& on_token) {
  constexpr int64_t kTimeoutMs = 60000;
  const GgufTensor* embedding = FindRole(*file_, Role::kTokenEmbedding);
  const int64_t row_bytes = embedding->row_bytes();
  for (size_t begin = 0; begin < tokens.size();) {
    const size_t end = std::min(begin + static_cast<size_t>(step_tokens), tokens.size());
    std::vector<StepToken> step;
    for (size_t i = begin; i < end; ++i) {
      dequantize(embedding->type, file_->TensorBytes(*embedding).data() + tokens[i] * row_bytes,
                 config_.d_model, driver_->x() + (i - begin) * config_.d_model);
      const size_t row = (i - begin + (options_.rotates_logit_rows ? 1 : 0)) % (end - begin);
      const auto& modes = options_.token_modes;
      step.push_back({0, static_cast<int32_t>(n_past + i), static_cast<int32_t>(row),
                      modes.empty() ? options_.token_mode : modes[(n_past + i) % modes.size()]});
    }
    RETURN_IF_ERROR(
        driver_->Run(step, static_cast<int32_t>(step.size()), kTimeoutMs, wants_best_only));
    for (const StepToken& token : step) on_token(token.logit_row);
    begin = end;
  }
  return absl::OkStatus();
}

FfnCounts MiniFleet::Counts() const {
  FfnCounts sum;
  for (const auto& rank : ranks_) {
    const std::vector<FfnCounts> layers =
        rank->forward != nullptr ? rank->forward->totals().ffn : rank->device_forward->totals().ffn;
    for (const FfnCounts& layer : layers) sum.Add(layer);
  }
  return sum;
}

std::vector<int32_t> BestOfRows(const std::vector<float>& logits, int64_t n_vocab) {
  std::vector<int32_t> best;
  for (int64_t at = 0; at < std::ssize(logits); at += n_vocab) {
    best.push_back(BestOf(logits.data() + at, n_vocab).token);
  }
  return best;
}

double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    difference += d * d;
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace thermocline::testing
