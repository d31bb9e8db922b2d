// The order of things at a fleet's start.
#include "coordinator/engine/fleet_starter.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "common/plan/decided_neurons.h"
#include "common/plan/streamed_neurons.h"
#include "common/rpc/channel.h"
#include "common/util/status_macros.h"
#include "common/util/topology.h"
#include "common/util/version.h"
#include "coordinator/engine/gpu_devices.h"
#include "coordinator/engine/start_plan.h"
#include "coordinator/engine/trace_file.h"
#include "coordinator/engine/worker_handle.h"
#include "fmt/format.h"
#include "kernels/cuda/device_ops.h"

namespace thermocline {
namespace {

// Long enough for what the coordinator does between two steps, short enough that an idle fleet
// sleeps. Spinning with more threads than CPUs would take them from those that are waited for.
constexpr uint32_t kSpinUs = 100;
constexpr std::chrono::milliseconds kLook(20);  // between two looks at calls that run
constexpr int64_t kUnaskedContext = 4096;       // tokens
constexpr double kQ8Share = 34.0 / 64.0;        // of f16: 32 values with their scale

int64_t UsableCpus(const std::vector<NumaNode>& nodes) {
  int64_t n_cpus = 0;
  for (const NumaNode& node : nodes) n_cpus += static_cast<int64_t>(node.cpus.size());
  return n_cpus;
}

bool UsesGpus(const Plan& plan) {
  return std::any_of(plan.ranks.begin(), plan.ranks.end(),
                     [](const RankPlan& rank) { return !rank.device.empty(); });
}

// CPU workers, which compute what a GPU rank without a device holds, stream nothing.
bool HasAllDevices(const Plan& plan) {
  return std::none_of(plan.ranks.begin(), plan.ranks.end(), [](const RankPlan& rank) {
    return rank.kind == RankKind::kGpu && rank.device.empty();
  });
}

// Finds the worker that hangs while it loads: all others may still make progress.
class LoadWatch {
  using Clock = std::chrono::steady_clock;

 public:
  LoadWatch(const std::vector<std::unique_ptr<WorkerHandle>>& workers, int64_t timeout_ms)
      : workers_(workers), timeout_(timeout_ms), seen_(workers.size(), {0, Clock::now()}) {}

  absl::Status Look() {
    for (size_t i = 0; i < workers_.size(); ++i) {
      const int64_t done = workers_[i]->bytes_done, total = workers_[i]->bytes_total;
      if (done != seen_[i].bytes) seen_[i] = {done, Clock::now()};
      if (done == total || Clock::now() - seen_[i].changed < timeout_) continue;
      return absl::DeadlineExceededError(
          fmt::format("{} made no progress in loading for {:g} s ({} of {} bytes done)",
                      workers_[i]->name(), timeout_.count() / 1000.0, done, total));
    }
    return absl::OkStatus();
  }

 private:
  struct Seen {
    int64_t bytes;
    Clock::time_point changed;
  };
  const std::vector<std::unique_ptr<WorkerHandle>>& workers_;
  const std::chrono::milliseconds timeout_;
  std::vector<Seen> seen_;  // [n_ranks]
};

}  // namespace

absl::StatusOr<std::unique_ptr<Fleet>> Fleet::Start(const FleetOptions& options,
                                                    const OnProgress& on_progress,
                                                    const std::atomic<bool>* cancelled) {
  return FleetStarter(options, on_progress, cancelled).Start();
}

FleetStarter::FleetStarter(const FleetOptions& options, const Fleet::OnProgress& on_progress,
                           const std::atomic<bool>* cancelled)
    : options_(options), on_progress_(on_progress), cancelled_(cancelled) {}

absl::StatusOr<std::unique_ptr<Fleet>> FleetStarter::Start() {
  if (!options_.trace_path.empty()) RETURN_IF_ERROR(CheckTracePath(options_.trace_path));
  fleet_.reset(new Fleet());
  ASSIGN_OR_RETURN(fleet_->model_,
                   ModelHeader::Open(options_.model_path, options_.hidden_activation));
  fleet_->options_ = options_;
  if (!options_.trace_path.empty()) fleet_->trace_ = std::make_unique<TraceRecorder>();
  const int64_t n_ctx_train = fleet_->model_->config().n_ctx_train;
  fleet_->n_ctx_ = options_.n_ctx > 0 ? options_.n_ctx : n_ctx_train;
  fleet_->options_.batch_size = std::min(options_.batch_size, fleet_->n_ctx_);
  fleet_->options_.max_logit_rows = std::min(options_.max_logit_rows, fleet_->options_.batch_size);
  RETURN_IF_ERROR(MakePlan());
  RETURN_IF_ERROR(MakeSegment());
  RETURN_IF_ERROR(StartWorkers());
  RETURN_IF_ERROR(ConfigureWorkers());
  RETURN_IF_ERROR(LoadShards());
  RETURN_IF_ERROR(ConnectExchange());
  return std::move(fleet_);
}

absl::Status FleetStarter::MakePlan() {
  const ModelHeader& model = *fleet_->model_;
  ASSIGN_OR_RETURN(setup_, OpenSparseSetup(options_.sparsity, model));
  Plan* plan = &fleet_->plan_;
  if (!options_.plan_path.empty()) {
    ASSIGN_OR_RETURN(*plan, ReadPlan(options_.plan_path));
    const Profile* profile = setup_.profile.has_value() ? &*setup_.profile : nullptr;
    const absl::Status status =
        CheckPlan(*plan, model.config(), model.file().ContentHash(), profile);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}", options_.plan_path, std::string(status.message())));
    }
    // A plan says how it computes, unless the user does.
    if (options_.sparsity.mode != "auto") {
      ASSIGN_OR_RETURN(const ModelShape shape, ShapeOfModel(model, setup_));
      ASSIGN_OR_RETURN(const ModeChoices choices,
                       ModesOfLayers(options_.sparsity, model, shape, setup_));
      const std::vector<LayerMode>& modes = choices[0];  // the one that was asked for
      for (size_t i = 0; i < modes.size(); ++i) {
        plan->layers[i].mode = modes[i].mode;
        plan->layers[i].sketch_bits = modes[i].sketch_bits;
      }
    }
    RETURN_IF_ERROR(NameDevices());
  } else {
    // Pages of the KV cache appear as they are used: of a context that nobody asked for, which may
    // be a model's longest, there need not be memory for all. Tokens in f32 take twice as much.
    const int64_t n_ctx =
        options_.n_ctx > 0 ? fleet_->n_ctx_ : std::min(fleet_->n_ctx_, kUnaskedContext);
    const FleetOptions& options = fleet_->options_;
    ASSIGN_OR_RETURN(GpuDevices gpus, FindGpus());
    const bool has_gpus = !gpus.devices.empty();
    ASSIGN_OR_RETURN(*plan, PlanForStart({.n_workers = options.n_workers,
                                          .n_threads = options.n_threads,
                                          .n_ctx = n_ctx,
                                          .n_kv_tokens = n_ctx * options.n_slots *
                                                         (options.kv_type == "f32" ? 2 : 1),
                                          .gpu_kv_share = options.kv_type == "q8_0" ? kQ8Share : 1,
                                          .shares_memory = options.transport != "grpc",
                                          .batch_size = options.batch_size,
                                          .max_logit_rows = options.max_logit_rows,
                                          .is_traced = !options.trace_path.empty(),
                                          .gpus = std::move(gpus.devices),
                                          .n_gpu_layers = options.n_gpu_layers,
                                          .vram_budget_bytes = options.vram_budget_bytes,
                                          .splits_ffn = options.splits_ffn},
                                         options.sparsity, model, setup_));
    if (has_gpus && !UsesGpus(*plan)) {
      fleet_->no_gpu_reason_ = "beside the buffers of a step nothing fits in its budget";
    }
  }
  // On a GPU a KV cache is there as a whole from the start.
  if (options_.n_ctx == 0 && UsesGpus(*plan)) {
    fleet_->n_ctx_ = std::min(fleet_->n_ctx_, kUnaskedContext);
  }
  RETURN_IF_ERROR(SetTail());
  RETURN_IF_ERROR(SetDeciders());
  const bool is_short = fleet_->options_.batch_size < plan->stream_tokens;
  if (is_short || !HasAllDevices(*plan)) plan->stream_tokens = 0;
  return SetThresholds(model, *plan, &setup_);
}

// A context that is no longer than GPUs keep of it has no tail, and neither has one without GPUs.
absl::Status FleetStarter::SetTail() {
  Plan* plan = &fleet_->plan_;
  if (plan->gpu_ctx >= fleet_->n_ctx_ || !UsesGpus(*plan)) {
    plan->gpu_ctx = 0;
    for (LayerPlan& layer : plan->layers) layer.tail_heads.clear();
  }
  for (int32_t rank = 0; plan->gpu_ctx > 0 && rank < plan->n_ranks(); ++rank) {
    if (UsesSharedMemory(rank)) continue;
    return absl::UnimplementedError(fmt::format(
        "a context of {} tokens, of which GPUs hold {}, needs all workers in shared "
        "memory, and worker {} is not; lower --ctx-size to {}, or leave out --transport "
        "grpc and workers on other hosts",
        fleet_->n_ctx_, plan->gpu_ctx, rank, plan->gpu_ctx));
  }
  return absl::OkStatus();
}

// CPU ranks choose for themselves where their GPU is not there.
absl::Status FleetStarter::SetDeciders() {
  Plan* plan = &fleet_->plan_;
  for (LayerPlan& layer : plan->layers) {
    if (layer.decider >= 0 && plan->ranks[layer.decider].device.empty()) layer.decider = -1;
  }
  for (int32_t rank = 0; MaxChoices(*plan) > 0 && rank < plan->n_ranks(); ++rank) {
    if (UsesSharedMemory(rank)) continue;
    return absl::UnimplementedError(fmt::format(
        "a GPU that decides for CPU ranks needs all workers in shared memory, and worker {} is "
        "not; take \"decider\" out of the plan, or leave out --transport grpc and workers on other "
        "hosts",
        rank));
  }
  return absl::OkStatus();
}

// With auto, what no GPU worker computes is left to CPU workers; GPUs that are named say it
// themselves.
absl::StatusOr<GpuDevices> FleetStarter::FindGpus() {
  const int64_t d_head = fleet_->model_->config().d_head;
  std::string obstacle;
  if (!kernels::device_has_head(d_head)) {
    obstacle = fmt::format("attention heads of {} values are not computed on a GPU", d_head);
  } else if (options_.f32_activations || options_.kv_type == "f32") {
    obstacle = "GPUs compute with int8 activations and a KV cache of f16 or q8_0";
  } else if (options_.sparsity.measures_recall) {
    obstacle = "a GPU does not count what a predictor misses";
  }
  GpuDevices gpus;
  if (options_.gpu_device == "auto" && !obstacle.empty()) {
    gpus.reason = obstacle;
  } else {
    ASSIGN_OR_RETURN(gpus, ChooseGpuDevices(options_.gpu_device, options_.gpu_worker_binary));
  }
  fleet_->no_gpu_reason_ = gpus.reason;
  return gpus;
}

// A plan's GPU ranks that name no device take those that were chosen, in turn. Where there are
// none, CPU workers compute what they hold.
absl::Status FleetStarter::NameDevices() {
  std::vector<RankPlan*> unnamed;
  for (RankPlan& rank : fleet_->plan_.ranks) {
    if (rank.kind != RankKind::kGpu || !rank.device.empty()) continue;
    if (rank.address.empty()) {
      unnamed.push_back(&rank);
    } else {
      rank.device = "cuda:0";  // of its host
    }
  }
  if (unnamed.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const GpuDevices gpus, FindGpus());
  if (gpus.devices.empty()) return absl::OkStatus();
  if (gpus.devices.size() < unnamed.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{} is for {} GPUs, --gpu-device {} names {}; make a plan for what there is",
                    options_.plan_path, unnamed.size(), options_.gpu_device, gpus.devices.size()));
  }
  for (size_t i = 0; i < unnamed.size(); ++i) unnamed[i]->device = gpus.devices[i].name;
  return absl::OkStatus();
}

absl::Status FleetStarter::MakeSegment() {
  const ModelConfig& config = fleet_->model_->config();
  ExchangeShape shape;
  shape.n_ranks = fleet_->plan_.n_ranks();
  shape.max_tokens = static_cast<int32_t>(fleet_->options_.batch_size);
  shape.d_model = static_cast<int32_t>(config.d_model);
  shape.n_layers = static_cast<int32_t>(config.n_layers);
  shape.n_vocab = static_cast<int32_t>(config.n_vocab);
  shape.max_logit_rows = static_cast<int32_t>(fleet_->options_.max_logit_rows);
  int64_t local_threads = 0;
  for (const RankPlan& rank : fleet_->plan_.ranks) {
    if (!rank.address.empty()) continue;
    const bool is_emulated = rank.device.starts_with("emulated");  // whose stream is a thread, too
    local_threads += rank.n_threads + (is_emulated ? 1 : 0);
  }
  spin_us_ = local_threads <= UsableCpus(UsableNodes()) ? kSpinUs : 0;
  if (fleet_->plan_.gpu_ctx > 0) {
    shape.tail = {static_cast<int32_t>(fleet_->plan_.gpu_ctx), static_cast<int32_t>(config.n_heads),
                  static_cast<int32_t>(config.n_kv_heads), static_cast<int32_t>(config.d_head)};
  }
  shape.n_choices = static_cast<int32_t>(MaxChoices(fleet_->plan_));
  const uint32_t epoch = std::random_device()();
  ASSIGN_OR_RETURN(fleet_->segment_, Segment::Create(shape, epoch, spin_us_));
  fleet_->driver_ = std::make_unique<StepDriver>(fleet_->segment_.get());
  return absl::OkStatus();
}

bool FleetStarter::UsesSharedMemory(int32_t rank) const {
  return fleet_->plan_.ranks[rank].address.empty() && options_.transport != "grpc";
}

absl::Status FleetStarter::StartWorkers() {
  std::string binary = options_.worker_binary, gpu_binary = options_.gpu_worker_binary;
  if (binary.empty()) {
    ASSIGN_OR_RETURN(binary, ProgramBeside("cpu_worker"));
  }
  if (gpu_binary.empty()) {
    ASSIGN_OR_RETURN(gpu_binary, ProgramBeside("gpu_worker"));
  }
  // All processes first: a channel starts threads, and a fleet of many should load side by side.
  std::vector<std::unique_ptr<WorkerProcess>> processes(fleet_->plan_.n_ranks());
  for (int32_t rank = 0; rank < fleet_->plan_.n_ranks(); ++rank) {
    const std::string& address = fleet_->plan_.ranks[rank].address;
    if (!address.empty() && options_.transport == "shm") {
      return absl::InvalidArgumentError(fmt::format(
          "worker {} at {} is not on this host's segment: --transport shm is not possible", rank,
          address));
    }
    if (address.empty()) {
      const bool is_gpu = !fleet_->plan_.ranks[rank].device.empty();
      ASSIGN_OR_RETURN(processes[rank],
                       WorkerProcess::Spawn(is_gpu ? gpu_binary : binary, fleet_->segment_->fd()));
    }
  }
  std::vector<const WorkerProcess*> watched;
  for (int32_t rank = 0; rank < fleet_->plan_.n_ranks(); ++rank) {
    const std::string& address = fleet_->plan_.ranks[rank].address;
    std::shared_ptr<grpc::Channel> channel;
    if (address.empty()) {
      channel = ChannelFromFd(processes[rank]->TakeControlFd());
    } else {
      const TlsFiles tls = {options_.tls_ca, options_.tls_cert, options_.tls_key};
      ASSIGN_OR_RETURN(channel, ChannelTo(address, tls));
    }
    watched.push_back(processes[rank].get());
    fleet_->workers_.push_back(
        std::make_unique<WorkerHandle>(rank, std::move(processes[rank]), channel, address));
  }
  Fleet* fleet = fleet_.get();
  Supervisor::Look look;
  if (std::find(watched.begin(), watched.end(), nullptr) != watched.end()) {
    look = [fleet] { fleet->LookAtConnections(); };
  }
  fleet_->supervisor_ = std::make_unique<Supervisor>(
      std::move(watched), [fleet](int32_t rank) { fleet->OnWorkerEnd(rank); }, std::move(look));
  return absl::OkStatus();
}

worker::v1::ConfigureRequest FleetStarter::ConfigureRequestFor(int32_t rank) const {
  const auto set = [](worker::v1::Range* message, const Range& range) {
    message->set_begin(range.begin);
    message->set_end(range.end);
  };
  const auto set_bounds = [](google::protobuf::RepeatedField<uint32_t>* bounds,
                             const std::vector<Range>& ranges) {
    for (const Range& range : ranges) {
      bounds->Add(static_cast<uint32_t>(range.begin));
      bounds->Add(static_cast<uint32_t>(range.end));
    }
  };
  const Plan& plan = fleet_->plan_;
  worker::v1::ConfigureRequest request;
  request.set_version(kVersion);
  request.set_rank(rank);
  request.set_n_ranks(plan.n_ranks());
  request.set_model_path(options_.model_path);
  request.set_model_hash(fleet_->model_->file().ContentHash());
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    worker::v1::LayerShard* shard = request.add_layers();
    set(shard->mutable_kv_heads(), layer.kv_heads[rank]);
    if (!layer.tail_heads.empty()) set(shard->mutable_tail_heads(), layer.tail_heads[rank]);
    std::vector<int32_t> order;
    if (!plan.profile_hash.empty()) order = HottestFirst(setup_.profile->layers[i]);
    const auto index = static_cast<int64_t>(i);
    set_bounds(shard->mutable_neuron_bounds(), FileNeurons(layer, rank, order));
    set_bounds(shard->mutable_streamed_bounds(), StreamedNeurons(plan, index, rank, order));
    set_bounds(shard->mutable_decided_bounds(), DecidedNeurons(plan, index, rank, order));
    set_bounds(shard->mutable_choice_bounds(), ChoicesOfRank(plan, index, rank, order));
    shard->set_mode(static_cast<worker::v1::LayerShard::Mode>(layer.mode));
    shard->set_sketch_bits(layer.sketch_bits);
    shard->set_threshold(setup_.thresholds[i]);
  }
  request.set_predictor_path(setup_.predictor_file);
  request.set_measures_recall(options_.sparsity.measures_recall);
  set(request.mutable_vocab(), plan.vocab[rank]);
  request.set_node(plan.ranks[rank].node);
  request.set_n_threads(plan.ranks[rank].n_threads);
  request.set_stream_tokens(plan.stream_tokens);
  request.set_isa(options_.isa);
  request.set_device(plan.ranks[rank].device);
  if (!plan.ranks[rank].device.empty()) request.set_memory_bytes(plan.ranks[rank].memory_bytes);
  request.set_hidden_activation(options_.hidden_activation);
  request.set_f32_activations(options_.f32_activations);
  request.set_kv_type(options_.kv_type);
  request.set_n_ctx(static_cast<int32_t>(fleet_->n_ctx_));
  request.set_n_slots(static_cast<int32_t>(options_.n_slots));
  const ExchangeShape& shape = fleet_->segment_->shape();
  worker::v1::ExchangeShape* message = request.mutable_exchange();
  message->set_n_ranks(shape.n_ranks);
  message->set_max_tokens(shape.max_tokens);
  message->set_d_model(shape.d_model);
  message->set_n_layers(shape.n_layers);
  message->set_n_vocab(shape.n_vocab);
  message->set_max_logit_rows(shape.max_logit_rows);
  message->set_tail_begin(shape.tail.begin);
  message->set_n_heads(shape.tail.n_heads);
  message->set_n_kv_heads(shape.tail.n_kv_heads);
  message->set_d_head(shape.tail.d_head);
  message->set_n_choices(shape.n_choices);
  request.set_epoch(fleet_->segment_->header().epoch);
  request.set_spin_us(spin_us_);
  request.set_exchange_layout(kExchangeLayout);
  request.set_trace(!options_.trace_path.empty());
  return request;
}

absl::Status FleetStarter::CallAll(const std::function<absl::Status(size_t index)>& call,
                                   const std::function<absl::Status()>& look) {
  std::mutex mutex;
  std::condition_variable changed;
  size_t n_left = fleet_->workers_.size();
  int32_t failed_rank = -1;
  absl::Status failure;  // of failed_rank, or of `look`
  std::thread calls([&] {
    fleet_->OnAllWorkers([&](size_t i) {
      const absl::Status status = call(i);
      std::lock_guard<std::mutex> lock(mutex);
      if (!status.ok() && failure.ok()) {
        failure = status;
        failed_rank = static_cast<int32_t>(i);
      }
      --n_left;
      changed.notify_all();
    });
  });
  std::unique_lock<std::mutex> lock(mutex);
  while (!changed.wait_for(lock, kLook, [&] { return n_left == 0; })) {
    if (failure.ok()) failure = look();
    if (failure.ok() && !is_cancelled()) continue;
    // Every time, as a call may just have been about to start.
    for (const auto& worker : fleet_->workers_) worker->CancelCall();
  }
  lock.unlock();
  calls.join();
  if (is_cancelled()) return absl::CancelledError("the start was cancelled");
  return failed_rank < 0 ? failure : fleet_->LostWorker(failed_rank, failure);
}

absl::Status FleetStarter::ConfigureWorkers() {
  std::vector<worker::v1::ConfigureResponse> responses(fleet_->workers_.size());
  const auto configure = [&](size_t i) -> absl::Status {
    ASSIGN_OR_RETURN(responses[i],
                     fleet_->workers_[i]->Configure(ConfigureRequestFor(static_cast<int32_t>(i))));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(CallAll(configure, [] { return absl::OkStatus(); }));
  for (size_t i = 0; i < responses.size(); ++i) {
    fleet_->workers_[i]->bytes_total = responses[i].weight_bytes();
    if (!responses[i].device().empty()) {
      fleet_->devices_.push_back(responses[i].device());
      continue;
    }
    const bool is_first = fleet_->isa_.empty() || fleet_->isa_ == responses[i].isa();
    fleet_->isa_ = is_first ? responses[i].isa() : "mixed";
  }
  return absl::OkStatus();
}

absl::Status FleetStarter::LoadShards() {
  LoadWatch watch(fleet_->workers_, options_.load_timeout_ms);
  const auto report = [&] {
    int64_t done = 0, total = 0;
    for (const auto& worker : fleet_->workers_) {
      done += worker->bytes_done;
      total += worker->bytes_total;
    }
    if (on_progress_) on_progress_(done, total);
  };
  const auto look = [&] {
    report();
    return watch.Look();
  };
  RETURN_IF_ERROR(CallAll([&](size_t i) { return fleet_->workers_[i]->LoadShard(); }, look));
  report();
  return absl::OkStatus();
}

absl::Status FleetStarter::ConnectExchange() {
  const auto attach = [&](size_t i) {
    return UsesSharedMemory(static_cast<int32_t>(i)) ? fleet_->workers_[i]->AttachSegment()
                                                     : absl::OkStatus();
  };
  RETURN_IF_ERROR(CallAll(attach, [] { return absl::OkStatus(); }));
  for (int32_t rank = 0; rank < fleet_->plan_.n_ranks(); ++rank) {
    if (UsesSharedMemory(rank)) continue;
    fleet_->workers_[rank]->StartProxy(fleet_->segment_.get(), fleet_->plan_.vocab[rank]);
  }
  std::lock_guard<std::mutex> lock(fleet_->mutex_);
  fleet_->is_standing_ = true;
  return fleet_->failure_;
}

}  // namespace thermocline
