// The coordinator's view of one worker: how to call it, what it said, whether it is there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/plan/plan.h"
#include "common/rpc/proxy.h"
#include "common/util/trace.h"
#include "coordinator/engine/worker_process.h"
#include "proto/worker.grpc.pb.h"

namespace thermocline {

class WorkerHandle {
 public:
  // process: null for a worker that runs elsewhere; address then says where.
  WorkerHandle(int32_t rank, std::unique_ptr<WorkerProcess> process,
               std::shared_ptr<grpc::Channel> channel, std::string address);
  ~WorkerHandle();

  int32_t rank() const { return rank_; }
  // "worker 1 (process 4711)" or "worker 1 (host:port)".
  std::string name() const;
  WorkerProcess* process() const { return process_.get(); }

  // Whether the connection stands, as far as is known: gRPC looks at one that carries nothing every
  // 5 s. For a worker on an address.
  bool IsConnected() const;

  // Calls; errors are prefixed with name(). Configure, LoadShard and AttachSegment are made one
  // after another and can be cancelled meanwhile, from another thread.
  absl::StatusOr<worker::v1::ConfigureResponse> Configure(
      const worker::v1::ConfigureRequest& request);
  // Blocks until the shard is loaded; bytes_done and bytes_total move meanwhile.
  absl::Status LoadShard();
  absl::Status AttachSegment();
  void CancelCall();
  // A buffer of the worker that is read once by each Read; it lasts as long as the test, which may
  // take two minutes.
  struct ReadTest {
    grpc::ClientContext context;
    std::unique_ptr<
        grpc::ClientReaderWriter<worker::v1::MeasureRequest, worker::v1::MeasureResponse>>
        stream;
    ~ReadTest() { context.TryCancel(); }
  };
  absl::StatusOr<std::unique_ptr<ReadTest>> PrepareReadTest(int64_t buffer_bytes);
  absl::StatusOr<worker::v1::MeasureResponse> Read(ReadTest& test);
  absl::StatusOr<worker::v1::StatsResponse> Stats();
  absl::Status StartCapture(const worker::v1::StartCaptureRequest& request);
  // What the rank has of a layer: counts of its neurons, samples if it was asked for them.
  struct Captured {
    int64_t n_tokens = 0;
    std::vector<uint32_t> fired;  // [neurons of the rank]; empty without ReLU
    std::vector<float> samples;   // [n_samples, d_model]
  };
  absl::StatusOr<Captured> ReadCapture(int32_t layer);
  absl::StatusOr<std::vector<TraceSpan>> ReadTrace();

  // Carries the exchange over gRPC from now on. The segment must outlive the handle.
  void StartProxy(Segment* segment, Range vocab);
  RankProxy* proxy() const { return proxy_.get(); }

  std::atomic<int64_t> bytes_done{0}, bytes_total{0};

 private:
  absl::Status Named(const grpc::Status& status) const;
  grpc::ClientContext* NewCall();  // its context, until the next one

  const int32_t rank_;
  const std::string address_;
  std::unique_ptr<WorkerProcess> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<worker::v1::Worker::Stub> stub_;
  std::unique_ptr<RankProxy> proxy_;
  std::mutex call_mutex_;
  std::unique_ptr<grpc::ClientContext> call_;  // guarded by call_mutex_
};

}  // namespace thermocline
