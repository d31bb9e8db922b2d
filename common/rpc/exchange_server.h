// The worker's end of Worker.Exchange: takes the call, and moves its frames. What the frames say is
// in frame.h, the exchange over them in stream_exchange.h.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "common/rpc/frame.h"
#include "proto/worker.grpc.pb.h"

namespace thermocline {

// Base of a worker's service: Exchange is served by an ExchangeServer, the other methods are
// ordinary synchronous ones.
using WorkerServiceBase = worker::v1::Worker::WithAsyncMethod_Exchange<worker::v1::Worker::Service>;

// One call. Used by one thread at a time, any thread; that thread itself polls the socket.
class FrameStream {
 public:
  virtual ~FrameStream() = default;
  // False: the coordinator is gone, or the connection is.
  virtual bool Read(Frame* frame) = 0;
  virtual bool Write(const Frame& frame) = 0;
};

// Why not a synchronous method: there a frame wakes a thread of gRPC's pool, which wakes the
// handler. With a queue of its own, the thread that waits for the frame is the one that polls. A
// ping-pong over a Unix socket, 0 / 16 KiB, p50 in us, on 2 cores of a Xeon with other work on
// them: synchronous 37 / 52, asynchronous 23 / 31. (Two threads on one stream cost the same on the
// coordinator's side, where the synchronous API polls in the calling thread: 23 / 31 with either.)
class ExchangeServer {
 public:
  // Before builder->BuildAndStart(). `service` must outlive it, and the server be shut down before
  // it is destroyed.
  ExchangeServer(WorkerServiceBase* service, grpc::ServerBuilder* builder);
  ~ExchangeServer();

  // Waits for the coordinator to call, serves the call on this thread, and ends it with what
  // `serve` returns (Cancelled counts as OK). False when the server was shut down before a call
  // came. One call at a time.
  bool ServeCall(const std::function<absl::Status(FrameStream& stream)>& serve);

 private:
  WorkerServiceBase* service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
};

}  // namespace thermocline
