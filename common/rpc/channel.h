// Channels to workers and what a server needs to be called by them; credentials from files are in
// credentials.h.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"

namespace thermocline {

// First thing in main, before any use of gRPC. gRPC's own log messages are dropped: what matters of
// them comes back as a status. And each thread polls its own sockets. With gRPC's
// default one thread polls for all of the process and wakes the others: a process that also serves
// (the coordinator does) then waits longer for each frame. Ping-pong as in exchange_server.h, with
// an idle server in the client's process, 0 / 16 KiB, p50: 43 / 50 us by default, 22 / 35 so. An
// environment variable GRPC_POLL_STRATEGY that is set already stays.
void PrepareGrpc();

// Over a connected socket, which it takes.
std::shared_ptr<grpc::Channel> ChannelFromFd(int fd);
// The other end; before or after the server is started.
void ServeFd(grpc::Server* server, int fd);

// address: "unix:PATH" or "HOST:PORT". Plain text is for Unix sockets and loopback addresses only:
// InvalidArgument for others without ca, cert and key. Messages of any size; on TCP a peer that
// does not answer for some seconds counts as gone.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& address,
                                                         const TlsFiles& tls);
// The same rule for who listens; with TLS files, clients must show a certificate of the CA.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentialsFor(
    const std::string& address, const TlsFiles& tls);
// Messages of any size, and on TCP the same keepalive. address: what the server listens on; "" for
// one that has inherited sockets only. (Pings over those would end idle channels: their client does
// not look at a socket while it makes no call.)
void ConfigureServer(grpc::ServerBuilder* builder, const std::string& address);

}  // namespace thermocline
