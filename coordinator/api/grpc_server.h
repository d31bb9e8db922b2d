// The coordinator's gRPC server: public service, grpc.health.v1, reflection, on one address.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"
#include "coordinator/api/grpc_service.h"

namespace thermocline {

struct GrpcServerOptions {
  std::string address;  // "host:port" (port 0: a free one) or "unix:PATH"
  TlsFiles tls;         // none: plain text, on this host only (ServerCredentialsFor)
};

class GrpcServer {
 public:
  // inference must outlive the server. Unavailable when the address can't be listened on,
  // InvalidArgument when it needs TLS files.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           Inference* inference);
  ~GrpcServer();  // as Shutdown, without grace

  const std::string& address() const { return address_; }  // with the port in use
  // Takes no more calls, lets running ones end until the grace is over, then cancels them.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  explicit GrpcServer(Inference* inference);
  void SetHealth();
  void WatchState();  // the health service follows the fleet's state

  Inference* inference_;
  GrpcService service_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::condition_variable closed_changed_;
  bool closed_ = false;
  std::thread watcher_;
};

}  // namespace thermocline
