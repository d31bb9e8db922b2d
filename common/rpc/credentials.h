// Credentials of gRPC channels and servers, read from PEM files. Who trusts whom is the caller's.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace thermocline {

struct TlsFiles {
  std::string ca;         // whom we trust; on a server: clients must show a certificate of this CA
  std::string cert, key;  // who we are; both or none
  bool empty() const { return ca.empty() && cert.empty() && key.empty(); }
};

// Plain text when no file is given. InvalidArgument for a certificate without a key or the other
// way round, and on a server for a CA without both; NotFound names a file that can't be read.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentials(const TlsFiles& files);
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const TlsFiles& files);

}  // namespace thermocline
