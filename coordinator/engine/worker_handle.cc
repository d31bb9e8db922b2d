// Calls on one worker's stub.
#include "coordinator/engine/worker_handle.h"

#include <chrono>
#include <cstring>

#include "common/rpc/status.h"
#include "common/util/version.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// For answers that take no work, or little.
constexpr std::chrono::seconds kConfigure(30);  // also to come up, for a worker on an address
constexpr std::chrono::seconds kAttach(30);
constexpr std::chrono::seconds kStats(10);
// From the first byte of a test's buffer that is touched to the last read of it.
constexpr std::chrono::seconds kReadTest(120);
constexpr std::chrono::seconds kReadTrace(60);     // megabytes
constexpr std::chrono::seconds kReadCapture(600);  // gigabytes, over any network

void SetTimeout(grpc::ClientContext* context, std::chrono::seconds timeout) {
  context->set_deadline(std::chrono::system_clock::now() + timeout);
}

// Bytes of the wire, little-endian as in memory, to the end of the values.
template <typename T>
void AppendValues(const std::string& bytes, std::vector<T>* values) {
  if (bytes.empty()) return;  // nothing to copy, and maybe nowhere to
  const size_t n = values->size();
  values->resize(n + bytes.size() / sizeof(T));
  std::memcpy(values->data() + n, bytes.data(), bytes.size() / sizeof(T) * sizeof(T));
}

}  // namespace

WorkerHandle::WorkerHandle(int32_t rank, std::unique_ptr<WorkerProcess> process,
                           std::shared_ptr<grpc::Channel> channel, std::string address)
    : rank_(rank),
      address_(std::move(address)),
      process_(std::move(process)),
      channel_(std::move(channel)),
      stub_(worker::v1::Worker::NewStub(channel_)) {}

WorkerHandle::~WorkerHandle() {
  proxy_.reset();  // its stream ends before the process is asked to
}

std::string WorkerHandle::name() const {
  return process_ != nullptr ? fmt::format("worker {} (process {})", rank_, process_->pid())
                             : fmt::format("worker {} ({})", rank_, address_);
}

absl::Status WorkerHandle::Named(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(fmt::format("{} did not answer in time", name()));
  }
  const absl::Status plain = FromGrpc(status);
  return absl::Status(plain.code(), fmt::format("{}: {}", name(), std::string(plain.message())));
}

bool WorkerHandle::IsConnected() const {
  return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
}

grpc::ClientContext* WorkerHandle::NewCall() {
  std::lock_guard<std::mutex> lock(call_mutex_);
  call_ = std::make_unique<grpc::ClientContext>();
  return call_.get();
}

void WorkerHandle::CancelCall() {
  std::lock_guard<std::mutex> lock(call_mutex_);
  if (call_ != nullptr) call_->TryCancel();
}

absl::StatusOr<worker::v1::ConfigureResponse> WorkerHandle::Configure(
    const worker::v1::ConfigureRequest& request) {
  grpc::ClientContext* context = NewCall();
  context->set_wait_for_ready(true);
  SetTimeout(context, kConfigure);
  worker::v1::ConfigureResponse response;
  const grpc::Status status = stub_->Configure(context, request, &response);
  if (!status.ok()) return Named(status);
  if (response.version() != kVersion) {
    return absl::FailedPreconditionError(
        fmt::format("{} is version {}, this coordinator is version {}; both must be the same",
                    name(), response.version(), kVersion));
  }
  return response;
}

absl::Status WorkerHandle::LoadShard() {
  const auto reader = stub_->LoadShard(NewCall(), worker::v1::LoadShardRequest());
  worker::v1::LoadProgress progress;
  while (reader->Read(&progress)) {
    bytes_total = progress.bytes_total();
    bytes_done = progress.bytes_done();
  }
  return Named(reader->Finish());
}

absl::Status WorkerHandle::AttachSegment() {
  grpc::ClientContext* context = NewCall();
  SetTimeout(context, kAttach);
  worker::v1::AttachSegmentResponse response;
  return Named(stub_->AttachSegment(context, worker::v1::AttachSegmentRequest(), &response));
}

void WorkerHandle::StartProxy(Segment* segment, Range vocab) {
  proxy_ = std::make_unique<RankProxy>(segment, rank_, static_cast<int32_t>(vocab.begin),
                                       static_cast<int32_t>(vocab.end), channel_);
}

absl::StatusOr<std::unique_ptr<WorkerHandle::ReadTest>> WorkerHandle::PrepareReadTest(
    int64_t buffer_bytes) {
  auto test = std::make_unique<ReadTest>();
  SetTimeout(&test->context, kReadTest);
  test->stream = stub_->Measure(&test->context);
  worker::v1::MeasureRequest request;
  request.set_buffer_bytes(buffer_bytes);
  worker::v1::MeasureResponse response;
  if (!test->stream->Write(request) || !test->stream->Read(&response)) {
    return Named(test->stream->Finish());
  }
  return test;
}

absl::StatusOr<worker::v1::MeasureResponse> WorkerHandle::Read(ReadTest& test) {
  worker::v1::MeasureResponse response;
  if (!test.stream->Write(worker::v1::MeasureRequest()) || !test.stream->Read(&response)) {
    return Named(test.stream->Finish());
  }
  return response;
}

absl::StatusOr<worker::v1::StatsResponse> WorkerHandle::Stats() {
  grpc::ClientContext context;
  SetTimeout(&context, kStats);
  worker::v1::StatsResponse response;
  const grpc::Status status = stub_->Stats(&context, worker::v1::StatsRequest(), &response);
  if (!status.ok()) return Named(status);
  return response;
}

absl::Status WorkerHandle::StartCapture(const worker::v1::StartCaptureRequest& request) {
  grpc::ClientContext context;
  SetTimeout(&context, kStats);
  worker::v1::StartCaptureResponse response;
  return Named(stub_->StartCapture(&context, request, &response));
}

absl::StatusOr<WorkerHandle::Captured> WorkerHandle::ReadCapture(int32_t layer) {
  grpc::ClientContext context;
  SetTimeout(&context, kReadCapture);
  worker::v1::ReadCaptureRequest request;
  request.set_layer(layer);
  const auto reader = stub_->ReadCapture(&context, request);
  Captured captured;
  worker::v1::CapturedLayer message;
  while (reader->Read(&message)) {
    if (message.n_tokens() > 0) captured.n_tokens = message.n_tokens();
    AppendValues(message.fired(), &captured.fired);
    AppendValues(message.samples(), &captured.samples);
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return Named(status);
  return captured;
}

absl::StatusOr<std::vector<TraceSpan>> WorkerHandle::ReadTrace() {
  grpc::ClientContext context;
  SetTimeout(&context, kReadTrace);
  const auto reader = stub_->ReadTrace(&context, worker::v1::ReadTraceRequest());
  std::vector<TraceSpan> spans;
  worker::v1::TraceSpans message;
  while (reader->Read(&message)) {
    for (const worker::v1::TraceSpan& span : message.spans()) {
      if (span.op() < 0 || span.op() >= kTraceOps) continue;  // no op of ours
      spans.push_back({span.begin_ns(), span.begin_ns() + span.duration_ns(), span.step(),
                       span.layer(), static_cast<TraceOp>(span.op())});
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return Named(status);
  return spans;
}

}  // namespace thermocline
