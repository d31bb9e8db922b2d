// The coordinator's thread for a rank that takes part by stream: it stands for the rank in the
// segment, so that the other ranks know nothing of carriers.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/exchange/segment.h"
#include "common/exchange/shm_exchange.h"
#include "common/rpc/frame.h"
#include "proto/worker.grpc.pb.h"

namespace thermocline {

class RankProxy {
 public:
  // Calls Worker.Exchange on the channel and serves the rank from a thread of its own. The segment
  // must outlive it. [vocab_begin, vocab_end) is the rank's slice of the logits.
  RankProxy(Segment* segment, int32_t rank, int32_t vocab_begin, int32_t vocab_end,
            const std::shared_ptr<grpc::Channel>& channel);
  // Stops the segment (kShutdown, if it isn't stopped already), tells the worker, and ends the
  // call; cancels it when the worker takes more than a second for that.
  ~RankProxy();
  RankProxy(const RankProxy&) = delete;
  RankProxy& operator=(const RankProxy&) = delete;

  // Why this rank failed: its stream broke, or brought what it should not. Then the segment has
  // been stopped with kFailed. OK otherwise, also when another rank failed.
  absl::Status status() const;

 private:
  void Run();
  absl::Status TakeSteps();
  absl::Status RunStep(const Step& step);
  absl::Status RunExchange(const FramePlace& place, int64_t n);
  absl::Status TakeLogits(const Step& step);
  absl::Status TakeCandidates();  // in_'s
  void EndCall(const absl::Status& reason);
  absl::Status Send();  // out_
  // Into in_; until it comes, the worker may say that it is working.
  absl::Status Receive(Frame::Kind kind, const FramePlace& place, int64_t n, Payload payload);
  absl::Status BrokenStream();

  Segment* segment_;
  const int32_t rank_, vocab_begin_, vocab_end_;
  ShmExchange exchange_;
  std::unique_ptr<worker::v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  // The synchronous API: the calling thread polls itself (exchange_server.h has figures).
  std::unique_ptr<grpc::ClientReaderWriter<Frame, Frame>> stream_;
  bool is_call_over_ = false;
  Frame out_, in_;
  std::vector<float> h_;  // [n_tokens, d_model]; as every rank has it

  mutable std::mutex mutex_;
  absl::Status status_;  // guarded by mutex_
  std::promise<void> done_;
  std::thread thread_;
};

}  // namespace thermocline
