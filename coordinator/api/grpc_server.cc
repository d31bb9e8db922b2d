// Builds and ends the server; see grpc_server.h.
#include "coordinator/api/grpc_server.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include <utility>

#include "common/rpc/channel.h"
#include "common/util/status_macros.h"
#include "proto/health.pb.h"

namespace thermocline {
namespace {

constexpr int kMaxRequestBytes = 64 << 20;  // a prompt may be long
constexpr std::chrono::seconds kWatchInterval(1);

// "host:0" with the port that was picked.
std::string WithPort(const std::string& address, int port) {
  const size_t colon = address.rfind(':');
  if (address.rfind("unix:", 0) == 0 || colon == std::string::npos) return address;
  return fmt::format("{}:{}", address.substr(0, colon), port);
}

// Once in a process, before the first server is built.
void InitPlugins() {
  static const bool once = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // Named, so that the linker keeps the description that reflection hands out.
    grpc::health::v1::HealthCheckResponse::descriptor();
    return true;
  }();
  (void)once;
}

}  // namespace

GrpcServer::GrpcServer(Inference* inference) : inference_(inference), service_(inference) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              Inference* inference) {
  InitPlugins();
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials,
                   ServerCredentialsFor(options.address, options.tls));
  std::unique_ptr<GrpcServer> result(new GrpcServer(inference));
  int port = 0;
  grpc::ServerBuilder builder;
  ConfigureServer(&builder, options.address);
  builder.AddListeningPort(options.address, credentials, &port);
  // Without it a second server would share the port and take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.RegisterService(&result->service_);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr) {
    return absl::UnavailableError(
        fmt::format("can't listen on {}: is the address this host's, and not in use? See --listen",
                    options.address));
  }
  result->address_ = WithPort(options.address, port);
  result->SetHealth();  // whoever is told the address may ask at once
  result->watcher_ = std::thread(&GrpcServer::WatchState, result.get());
  return result;
}

GrpcServer::~GrpcServer() { Shutdown(std::chrono::milliseconds(0)); }

void GrpcServer::SetHealth() {
  const bool serving = inference_->state().ok();
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(v1::Inference::service_full_name(), serving);
}

void GrpcServer::WatchState() {
  std::unique_lock lock(mutex_);
  while (!closed_changed_.wait_for(lock, kWatchInterval, [this] { return closed_; })) SetHealth();
}

void GrpcServer::Shutdown(std::chrono::milliseconds grace) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
  }
  closed_changed_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  if (server_ == nullptr) return;
  // Returns when all calls have ended: they look whether they are cancelled before every step.
  server_->Shutdown(std::chrono::system_clock::now() + grace);
}

}  // namespace thermocline
