// A standing fleet: steps, failures, questions to workers, the end.
#include "coordinator/engine/fleet.h"

#include <algorithm>
#include <thread>

#include "common/util/status_macros.h"
#include "coordinator/engine/trace_file.h"
#include "coordinator/engine/worker_handle.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// What a caller is told of a fleet that was given up, and what it can still do.
absl::Status CannotCompute(const absl::Status& reason) {
  return absl::UnavailableError(
      fmt::format("{}; the fleet answers Tokenize, Detokenize and ListModels, but computes nothing "
                  "until it is started again",
                  std::string(reason.message())));
}

}  // namespace

Fleet::~Fleet() {
  if (trace_ != nullptr && is_standing_) {
    const absl::Status saved = SaveTrace();
    if (options_.on_trace) options_.on_trace(saved);
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    is_ending_ = true;
  }
  supervisor_.reset();  // workers that end from now on do so because we ask them to
  if (segment_ != nullptr) segment_->Stop(StopReason::kShutdown);
  for (const auto& worker : workers_) {
    if (worker->process() != nullptr) worker->process()->Hangup();
  }
  workers_.clear();  // waits for each, all having been asked before
}

int64_t Fleet::n_threads() const {
  int64_t n_threads = 0;
  for (const RankPlan& rank : plan_.ranks) n_threads += rank.device.empty() ? rank.n_threads : 0;
  return n_threads;
}

std::string Fleet::transport() const {
  const auto by_stream = [](const auto& worker) { return worker->proxy() != nullptr; };
  const auto n_streams = std::count_if(workers_.begin(), workers_.end(), by_stream);
  if (n_streams == 0) return "shm";
  return n_streams == plan_.n_ranks() ? "grpc" : "grpc+shm";
}

absl::Status Fleet::state() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void Fleet::GiveUp(const absl::Status& reason) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.ok() && !is_ending_) failure_ = reason;
  }
  segment_->Stop(StopReason::kFailed);
}

void Fleet::OnWorkerEnd(int32_t rank) {
  WorkerHandle& worker = *workers_[rank];
  GiveUp(
      absl::UnavailableError(fmt::format("{} {}", worker.name(), worker.process()->DescribeEnd())));
}

void Fleet::LookAtConnections() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_standing_ || !failure_.ok()) return;
  }
  for (const auto& worker : workers_) {
    if (worker->process() != nullptr || worker->IsConnected()) continue;
    GiveUp(absl::UnavailableError(
        fmt::format("{} is lost: the connection to it ended", worker->name())));
  }
}

absl::Status Fleet::LostWorker(int32_t rank, const absl::Status& status) {
  // A broken connection is often the first sign of a process that ended, which says more.
  constexpr int kEndIsNearMs = 300;
  const WorkerProcess* process = workers_[rank]->process();
  if (process != nullptr && process->HasEnded(kEndIsNearMs)) OnWorkerEnd(rank);
  GiveUp(status);  // keeps the first reason
  return state();
}

absl::Status Fleet::Run(absl::Span<const TokenInput> tokens) {
  if (const absl::Status status = state(); !status.ok()) return CannotCompute(status);
  if (tokens.empty() || static_cast<int64_t>(tokens.size()) > options_.batch_size) {
    return absl::InvalidArgumentError(fmt::format("a step has 1 to {} tokens, this one has {}",
                                                  options_.batch_size, tokens.size()));
  }
  const int64_t begin_ns = MonotonicNs();
  step_tokens_.clear();
  int32_t n_rows = 0;
  // Ranks send whole rows as soon as one token needs its own; and where the file has rows for more
  // tokens than there are, as one of those must not be the best.
  has_best_only_ = tokenizer().n_vocab() == model_->config().n_vocab;
  const int64_t d_model = model_->config().d_model;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const TokenInput& token = tokens[i];
    if (token.position < 0 || token.position >= n_ctx_ || token.slot < 0 ||
        token.slot >= options_.n_slots) {
      return absl::OutOfRangeError(fmt::format("position {} of slot {} is outside a context of {}",
                                               token.position, token.slot, n_ctx_));
    }
    RETURN_IF_ERROR(model_->ReadEmbedding(token.token, driver_->x() + i * d_model));
    step_tokens_.push_back(
        {token.slot, token.position, token.wants_logits ? n_rows++ : -1, token.mode});
    if (token.wants_logits && !token.needs_only_best) has_best_only_ = false;
  }
  if (n_rows > options_.max_logit_rows) {
    return absl::InvalidArgumentError(fmt::format("{} tokens want logits, a step has at most {}",
                                                  n_rows, options_.max_logit_rows));
  }
  const int64_t post_ns = MonotonicNs();
  const absl::Status status =
      driver_->Run(step_tokens_, n_rows, options_.stall_timeout_ms, has_best_only_);
  if (!status.ok()) return ExplainFailure(status);
  if (trace_ != nullptr) {
    const int64_t end_ns = MonotonicNs();
    trace_->BeginStep(driver_->steps(), begin_ns);
    trace_->Add(TraceOp::kEmbed, -1, begin_ns, post_ns);
    trace_->Add(TraceOp::kRun, -1, post_ns, end_ns);
    trace_->EndStep(end_ns);
  }
  return absl::OkStatus();
}

absl::Status Fleet::ExplainFailure(const absl::Status& step_status) {
  for (const auto& worker : workers_) {
    const RankProxy* proxy = worker->proxy();
    if (proxy == nullptr || proxy->status().ok()) continue;
    return CannotCompute(LostWorker(worker->rank(), absl::UnavailableError(fmt::format(
                                                        "{} is lost: {}", worker->name(),
                                                        std::string(proxy->status().message())))));
  }
  std::string message(step_status.message());
  if (absl::IsDeadlineExceeded(step_status)) {
    std::string late;
    for (const int32_t rank : driver_->Late()) {
      late += (late.empty() ? "" : ", ") + workers_[rank]->name();
    }
    message = fmt::format("{} made no progress ({})", late, message);
  }
  GiveUp(absl::UnavailableError(message));  // unless a better reason is known
  return CannotCompute(state());
}

const float* Fleet::logits(int32_t row) const { return driver_->logits(row); }

int32_t Fleet::best(int32_t row) const {
  if (has_best_only_) return driver_->best(row).token;
  return BestOf(driver_->logits(row), tokenizer().n_vocab()).token;
}

absl::StatusOr<std::vector<worker::v1::StatsResponse>> Fleet::Stats() {
  std::vector<worker::v1::StatsResponse> all;
  for (const auto& worker : workers_) {
    ASSIGN_OR_RETURN(worker::v1::StatsResponse stats, worker->Stats());
    all.push_back(std::move(stats));
  }
  return all;
}

absl::StatusOr<v1::StatsResponse> Fleet::DescribeRanks() {
  RETURN_IF_ERROR(state());
  ASSIGN_OR_RETURN(const std::vector<worker::v1::StatsResponse> stats, Stats());
  return StatsForClients(stats);
}

absl::Status Fleet::SaveTrace() {
  RETURN_IF_ERROR(state());
  std::vector<RankTrace> ranks;
  for (const auto& worker : workers_) {
    ASSIGN_OR_RETURN(const worker::v1::StatsResponse stats, worker->Stats());
    ASSIGN_OR_RETURN(std::vector<TraceSpan> spans, worker->ReadTrace());
    const std::string name = stats.device().empty()
                                 ? fmt::format("{} thread{}, {}", stats.n_threads(),
                                               stats.n_threads() == 1 ? "" : "s", stats.isa())
                                 : stats.device();
    ranks.push_back({name, std::move(spans), worker->process() == nullptr});
  }
  return WriteTrace(options_.trace_path, trace_->Read(), std::move(ranks));
}

absl::StatusOr<FleetTotals> Fleet::Totals() {
  ASSIGN_OR_RETURN(const std::vector<worker::v1::StatsResponse> stats, Stats());
  return TotalsOf(stats);
}

absl::StatusOr<double> Fleet::MeasureReadGbps(int64_t buffer_bytes, int32_t repeats) {
  const size_t n_workers = workers_.size();
  const auto is_cpu = [&](size_t i) { return plan_.ranks[i].device.empty(); };
  std::vector<absl::StatusOr<std::unique_ptr<WorkerHandle::ReadTest>>> tests(n_workers);
  OnAllWorkers([&](size_t i) {
    if (!is_cpu(i)) return;
    const int64_t part = buffer_bytes * plan_.ranks[i].n_threads / n_threads();
    tests[i] = workers_[i]->PrepareReadTest(part);
  });
  for (size_t i = 0; i < n_workers; ++i) {
    if (is_cpu(i)) RETURN_IF_ERROR(tests[i].status());
  }
  double best = 0;
  for (int32_t repeat = 0; repeat < repeats; ++repeat) {
    std::vector<absl::StatusOr<worker::v1::MeasureResponse>> reads(n_workers);
    OnAllWorkers([&](size_t i) {
      if (is_cpu(i)) reads[i] = workers_[i]->Read(**tests[i]);
    });
    double bytes = 0, seconds = 0;  // all read at the same time, so the slowest decides
    for (size_t i = 0; i < n_workers; ++i) {
      if (!is_cpu(i)) continue;
      RETURN_IF_ERROR(reads[i].status());
      bytes += static_cast<double>(reads[i]->bytes());
      seconds = std::max(seconds, reads[i]->seconds());
    }
    if (seconds > 0) best = std::max(best, bytes / seconds / 1e9);
  }
  return best;
}

absl::Status Fleet::StartCapture(absl::Span<const int32_t> layers, int64_t n_tokens,
                                 int64_t n_samples) {
  if (!plan_.profile_hash.empty()) {
    return absl::FailedPreconditionError(
        "firings are counted in the file's order of neurons: start the fleet without --plan");
  }
  for (const auto& worker : workers_) {
    worker::v1::StartCaptureRequest request;
    request.set_n_tokens(n_tokens);
    request.set_n_samples(n_samples);
    for (const int32_t layer : layers) {
      if (layer < 0 || layer >= model_->config().n_layers) {
        return absl::InvalidArgumentError(
            fmt::format("the model has {} layers, not {}", model_->config().n_layers, layer));
      }
      if (SampledBy(layer) == worker->rank()) request.add_layers(layer);
    }
    RETURN_IF_ERROR(worker->StartCapture(request));
  }
  return absl::OkStatus();
}

// All ranks have the same input; the first one with neurons of the layer keeps it.
int32_t Fleet::SampledBy(int32_t layer) const {
  const auto& neurons = plan_.layers[layer].neurons;
  const auto has_some = [](const std::vector<Range>& ranges) { return !ranges.empty(); };
  return static_cast<int32_t>(std::find_if(neurons.begin(), neurons.end(), has_some) -
                              neurons.begin());
}

absl::StatusOr<Fleet::CapturedLayer> Fleet::ReadCapture(int32_t layer) {
  const ModelConfig& config = model_->config();
  CapturedLayer all;
  if (IsRelu(config.activation)) all.fired.resize(config.d_ff);
  for (const auto& worker : workers_) {
    ASSIGN_OR_RETURN(WorkerHandle::Captured captured, worker->ReadCapture(layer));
    size_t next = 0;  // of the rank's neurons, which lie in file order
    for (const Range& range : FileNeurons(plan_.layers[layer], worker->rank(), {})) {
      for (int64_t i = range.begin; i < range.end && next < captured.fired.size(); ++i) {
        if (!all.fired.empty()) all.fired[i] = captured.fired[next++];
      }
    }
    const bool is_whole = next == captured.fired.size() &&
                          captured.samples.size() % static_cast<size_t>(config.d_model) == 0;
    if (!is_whole) {
      return absl::InternalError(fmt::format("{} answers for layer {} with what is no whole layer",
                                             worker->name(), layer));
    }
    all.n_tokens = captured.n_tokens;
    if (!captured.samples.empty()) all.samples = std::move(captured.samples);
  }
  return all;
}

void Fleet::OnAllWorkers(const std::function<void(size_t index)>& call) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers_.size(); ++i) threads.emplace_back([&call, i] { call(i); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace thermocline
