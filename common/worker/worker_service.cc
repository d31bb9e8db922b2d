// Calls become methods of the rank; what the system refuses becomes a status. Nothing is computed
// here.
#include "common/worker/worker_service.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>

#include "common/exchange/shm_exchange.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_exchange.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// The system may refuse memory or threads anywhere below; a worker never dies of that.
template <typename Call>
absl::Status Guarded(const Call& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "no memory; a smaller --batch-size or --ctx-size, or more workers, need less each");
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(fmt::format("the system refuses: {}", error.what()));
  }
}

}  // namespace

WorkerService::WorkerService(Rank* worker, int segment_fd, std::function<void(absl::Status)> on_end)
    : worker_(worker), segment_fd_(segment_fd), on_end_(std::move(on_end)) {}

WorkerService::~WorkerService() {
  if (steps_.joinable()) steps_.join();
}

grpc::Status WorkerService::Configure(grpc::ServerContext*,
                                      const worker::v1::ConfigureRequest* request,
                                      worker::v1::ConfigureResponse* response) {
  return ToGrpc(Guarded([&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, worker_->Configure(*request));
    return absl::OkStatus();
  }));
}

grpc::Status WorkerService::LoadShard(grpc::ServerContext* context,
                                      const worker::v1::LoadShardRequest*,
                                      grpc::ServerWriter<worker::v1::LoadProgress>* writer) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kInterval = std::chrono::milliseconds(100);
  Clock::time_point last_sent;
  const auto report = [&](int64_t done, int64_t total) {
    if (context->IsCancelled()) return false;
    if (Clock::now() - last_sent < kInterval && done < total) return true;
    last_sent = Clock::now();
    worker::v1::LoadProgress progress;
    progress.set_bytes_done(done);
    progress.set_bytes_total(total);
    return writer->Write(progress);
  };
  return ToGrpc(Guarded([&] { return worker_->LoadShard(report); }));
}

grpc::Status WorkerService::AttachSegment(grpc::ServerContext*,
                                          const worker::v1::AttachSegmentRequest*,
                                          worker::v1::AttachSegmentResponse*) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (segment_fd_ < 0) {
    return {grpc::StatusCode::FAILED_PRECONDITION,
            "this worker has no segment (any more): it takes part by the Exchange stream"};
  }
  if (const absl::Status status = worker_->StartServing("shm"); !status.ok()) return ToGrpc(status);
  absl::StatusOr<std::unique_ptr<Segment>> segment =
      Segment::Attach(std::exchange(segment_fd_, -1), worker_->exchange_shape(), worker_->epoch());
  if (!segment.ok()) {
    on_end_(segment.status());
    return ToGrpc(segment.status());
  }
  segment_ = *std::move(segment);
  exchange_ = std::make_unique<ShmExchange>(segment_.get(), worker_->rank(),
                                            static_cast<int32_t>(worker_->vocab().begin));
  const absl::Status prepared = Guarded([&] { return worker_->Prepare(*exchange_); });
  if (!prepared.ok()) return ToGrpc(prepared);
  steps_ = std::thread([this] { on_end_(worker_->Serve(*exchange_)); });
  return grpc::Status::OK;
}

absl::Status WorkerService::ServeStream(FrameStream& stream) {
  RETURN_IF_ERROR(worker_->StartServing("grpc"));
  const absl::Status end = Guarded([&]() -> absl::Status {
    if (worker_->exchange_shape().n_choices > 0) {
      return absl::InvalidArgumentError(
          "exchange: what one rank chooses for others does not travel in a stream");
    }
    const Range vocab = worker_->vocab();
    StreamExchange exchange(&stream, worker_->exchange_shape(), worker_->epoch(),
                            static_cast<int32_t>(vocab.begin), static_cast<int32_t>(vocab.end));
    RETURN_IF_ERROR(worker_->Prepare(exchange));
    return worker_->Serve(exchange);
  });
  on_end_(end);
  return end;
}

grpc::Status WorkerService::Measure(
    grpc::ServerContext*,
    grpc::ServerReaderWriter<worker::v1::MeasureResponse, worker::v1::MeasureRequest>* stream) {
  worker::v1::MeasureRequest request;
  if (!stream->Read(&request)) return grpc::Status::OK;
  std::unique_ptr<ReadTest> test;
  const absl::Status prepared = Guarded([&]() -> absl::Status {
    ASSIGN_OR_RETURN(test, worker_->PrepareReadTest(request.buffer_bytes()));
    return absl::OkStatus();
  });
  if (!prepared.ok()) return ToGrpc(prepared);
  worker::v1::MeasureResponse response;
  while (stream->Write(response) && stream->Read(&request)) {
    response.set_seconds(test->Read());
    response.set_bytes(test->n_bytes());
  }
  return grpc::Status::OK;
}

grpc::Status WorkerService::Stats(grpc::ServerContext*, const worker::v1::StatsRequest*,
                                  worker::v1::StatsResponse* response) {
  *response = worker_->Stats();
  return grpc::Status::OK;
}

grpc::Status WorkerService::StartCapture(grpc::ServerContext*,
                                         const worker::v1::StartCaptureRequest* request,
                                         worker::v1::StartCaptureResponse* response) {
  return ToGrpc(Guarded([&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, worker_->StartCapture(*request));
    return absl::OkStatus();
  }));
}

grpc::Status WorkerService::ReadCapture(grpc::ServerContext*,
                                        const worker::v1::ReadCaptureRequest* request,
                                        grpc::ServerWriter<worker::v1::CapturedLayer>* writer) {
  constexpr int64_t kMessageValues = 1 << 20;
  return ToGrpc(Guarded([&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::shared_ptr<const CaptureView> capture,
                     worker_->ReadCapture(request->layer()));
    const int64_t n_rows = std::max<int64_t>(kMessageValues / capture->d_model(), 1);
    worker::v1::CapturedLayer message;
    message.set_n_tokens(capture->n_tokens());
    const std::vector<uint32_t> fired = capture->Fired(request->layer());
    message.set_fired(fired.data(), fired.size() * sizeof(uint32_t));
    for (int64_t begin = 0;; begin += n_rows) {
      const std::vector<float> samples = capture->Samples(request->layer(), begin, begin + n_rows);
      message.set_samples(samples.data(), samples.size() * sizeof(float));
      if (!writer->Write(message) || samples.empty()) return absl::OkStatus();
      message.Clear();
    }
  }));
}

grpc::Status WorkerService::ReadTrace(grpc::ServerContext*, const worker::v1::ReadTraceRequest*,
                                      grpc::ServerWriter<worker::v1::TraceSpans>* writer) {
  constexpr int kMessageSpans = 4096;
  return ToGrpc(Guarded([&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TraceSpan> spans, worker_->ReadTrace());
    worker::v1::TraceSpans message;
    for (size_t i = 0; i < spans.size(); ++i) {
      worker::v1::TraceSpan* span = message.add_spans();
      span->set_op(static_cast<int32_t>(spans[i].op));
      span->set_layer(spans[i].layer);
      span->set_step(spans[i].step);
      span->set_begin_ns(spans[i].begin_ns);
      span->set_duration_ns(spans[i].end_ns - spans[i].begin_ns);
      if (message.spans_size() < kMessageSpans && i + 1 < spans.size()) continue;
      if (!writer->Write(message)) break;
      message.clear_spans();
    }
    return absl::OkStatus();
  }));
}

}  // namespace thermocline
