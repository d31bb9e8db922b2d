// A worker's process in miniature: a gRPC server that serves Worker.Exchange with a fake rank.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "common/rpc/exchange_server.h"
#include "tests/common/exchange/fake_rank.h"

namespace thermocline::testing {

class FakeWorker {
 public:
  using Serve = std::function<absl::Status(FrameStream& stream)>;

  // Connected to its channel by a socket pair. `serve` runs on a thread of its own.
  static std::unique_ptr<FakeWorker> OnSocketPair(Serve serve);
  // Listens on a Unix socket of this name.
  static std::unique_ptr<FakeWorker> OnUnixSocket(const std::string& path, Serve serve);
  ~FakeWorker();

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  // The connection ends as it does when the process is killed. For OnSocketPair.
  void Kill();
  // What `serve` returned; waits for it.
  absl::Status End();

 private:
  FakeWorker() = default;
  void Start(grpc::ServerBuilder& builder, Serve serve);

  WorkerServiceBase service_;
  std::unique_ptr<ExchangeServer> exchange_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  int kill_fd_ = -1;
  absl::Status end_ = absl::UnknownError("was never called");
  std::thread thread_;
};

// Serves steps with a fake rank.
FakeWorker::Serve ServeFakeRank(const FakeRank& rank, uint32_t epoch);

}  // namespace thermocline::testing
