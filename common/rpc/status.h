// Errors on their way over gRPC and back: both sides number the codes alike.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace thermocline {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace thermocline
