// See channel.h.
#include "common/rpc/channel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server_posix.h>
#include <netinet/in.h>

#include <cstdlib>
#include <limits>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr int kKeepaliveMs = 10'000;  // of silence, then a ping
// For its answer. A client without a running call looks at its sockets every 5 s only.
constexpr int kKeepaliveTimeoutMs = 15'000;
constexpr int kNoLimit = -1;

bool IsLocal(const std::string& address) {
  if (address.starts_with("unix:")) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  in_addr ip;
  const bool is_loopback =
      inet_pton(AF_INET, host.c_str(), &ip) == 1 && ntohl(ip.s_addr) >> 24 == IN_LOOPBACKNET;
  return is_loopback || host == "localhost" || host == "[::1]";
}

// What an address asks of the files.
absl::Status CheckTls(const std::string& address, const TlsFiles& tls) {
  const bool is_complete = !tls.ca.empty() && !tls.cert.empty() && !tls.key.empty();
  if (is_complete || (tls.empty() && IsLocal(address))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' {}: say --tls-ca, --tls-cert and --tls-key, so that both sides know whom "
                  "they talk to",
                  address,
                  tls.empty() ? "is not on this host, and plain text does not leave it"
                              : "needs all TLS files or none"));
}

void SetNonBlocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

grpc::ChannelArguments NoSizeLimit() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kNoLimit);
  arguments.SetMaxSendMessageSize(kNoLimit);
  return arguments;
}

}  // namespace

void PrepareGrpc() {
  gpr_set_log_function([](gpr_log_func_args*) {});
  setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0);
}

std::shared_ptr<grpc::Channel> ChannelFromFd(int fd) {
  SetNonBlocking(fd);
  return grpc::CreateCustomInsecureChannelFromFd("worker", fd, NoSizeLimit());
}

void ServeFd(grpc::Server* server, int fd) {
  SetNonBlocking(fd);
  grpc::AddInsecureChannelFromFd(server, fd);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& address,
                                                         const TlsFiles& tls) {
  RETURN_IF_ERROR(CheckTls(address, tls));
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::ChannelCredentials> credentials, ChannelCredentials(tls));
  grpc::ChannelArguments arguments = NoSizeLimit();
  if (!address.starts_with("unix:")) {
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  }
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentialsFor(
    const std::string& address, const TlsFiles& tls) {
  RETURN_IF_ERROR(CheckTls(address, tls));
  return ServerCredentials(tls);
}

void ConfigureServer(grpc::ServerBuilder* builder, const std::string& address) {
  builder->SetMaxReceiveMessageSize(kNoLimit);
  builder->SetMaxSendMessageSize(kNoLimit);
  if (address.empty() || address.starts_with("unix:")) {  // the kernel tells who is gone
    builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, std::numeric_limits<int>::max());
    return;
  }
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kKeepaliveMs / 2);
}

}  // namespace thermocline
