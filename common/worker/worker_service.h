// The Worker service over gRPC: messages in, a Rank's methods, messages out.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "common/exchange/shm_exchange.h"
#include "common/rpc/exchange_server.h"
#include "common/worker/rank.h"

namespace thermocline {

class WorkerService final : public WorkerServiceBase {
 public:
  // segment_fd: inherited, or -1 (then AttachSegment is refused). on_end is called from any thread
  // when serving a fleet's steps has ended: OK after a shutdown, or why.
  WorkerService(Rank* worker, int segment_fd, std::function<void(absl::Status)> on_end);
  ~WorkerService() override;  // the exchange must have ended

  grpc::Status Configure(grpc::ServerContext* context, const worker::v1::ConfigureRequest* request,
                         worker::v1::ConfigureResponse* response) override;
  grpc::Status LoadShard(grpc::ServerContext* context, const worker::v1::LoadShardRequest* request,
                         grpc::ServerWriter<worker::v1::LoadProgress>* writer) override;
  grpc::Status AttachSegment(grpc::ServerContext* context,
                             const worker::v1::AttachSegmentRequest* request,
                             worker::v1::AttachSegmentResponse* response) override;
  grpc::Status Measure(grpc::ServerContext* context,
                       grpc::ServerReaderWriter<worker::v1::MeasureResponse,
                                                worker::v1::MeasureRequest>* stream) override;
  grpc::Status Stats(grpc::ServerContext* context, const worker::v1::StatsRequest* request,
                     worker::v1::StatsResponse* response) override;
  grpc::Status StartCapture(grpc::ServerContext* context,
                            const worker::v1::StartCaptureRequest* request,
                            worker::v1::StartCaptureResponse* response) override;
  grpc::Status ReadCapture(grpc::ServerContext* context,
                           const worker::v1::ReadCaptureRequest* request,
                           grpc::ServerWriter<worker::v1::CapturedLayer>* writer) override;

  grpc::Status ReadTrace(grpc::ServerContext* context, const worker::v1::ReadTraceRequest* request,
                         grpc::ServerWriter<worker::v1::TraceSpans>* writer) override;

  // Serves one Exchange call; what ExchangeServer::ServeCall takes.
  absl::Status ServeStream(FrameStream& stream);

 private:
  Rank* worker_;
  std::mutex mutex_;  // of what follows
  int segment_fd_;
  std::unique_ptr<Segment> segment_;
  std::unique_ptr<ShmExchange> exchange_;  // on it
  std::thread steps_;                      // serves steps over the segment
  std::function<void(absl::Status)> on_end_;
};

}  // namespace thermocline
