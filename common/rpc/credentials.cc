// See credentials.h.
#include "common/rpc/credentials.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "common/util/status_macros.h"

namespace thermocline {
namespace {

absl::Status ReadPem(const std::string& path, std::string* text) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  if (!file || !(bytes << file.rdbuf())) {
    return absl::NotFoundError(fmt::format("can't read the PEM file '{}'", path));
  }
  *text = bytes.str();
  return absl::OkStatus();
}

struct Pem {
  std::string ca, cert, key;
};

absl::StatusOr<Pem> Read(const TlsFiles& files) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("a TLS certificate and its key must be given together");
  }
  Pem pem;
  RETURN_IF_ERROR(ReadPem(files.ca, &pem.ca));
  RETURN_IF_ERROR(ReadPem(files.cert, &pem.cert));
  RETURN_IF_ERROR(ReadPem(files.key, &pem.key));
  return pem;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentials(
    const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureChannelCredentials();
  ASSIGN_OR_RETURN(const Pem pem, Read(files));
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = pem.ca;
  options.pem_cert_chain = pem.cert;
  options.pem_private_key = pem.key;
  return grpc::SslCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureServerCredentials();
  ASSIGN_OR_RETURN(const Pem pem, Read(files));
  if (pem.cert.empty()) {
    return absl::InvalidArgumentError("a TLS server needs a certificate and its key");
  }
  grpc::SslServerCredentialsOptions options(
      pem.ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                     : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = pem.ca;
  options.pem_key_cert_pairs.push_back({pem.key, pem.cert});
  return grpc::SslServerCredentials(options);
}

}  // namespace thermocline
