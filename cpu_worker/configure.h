// Reads a ConfigureRequest: every number in it is checked against the model before it is used.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/segment.h"
#include "common/model/config.h"
#include "cpu_worker/shard.h"
#include "kernels/ops.h"
#include "proto/worker.pb.h"

namespace thermocline {

// InvalidArgument names the field.
absl::StatusOr<ShardSpec> SpecFromRequest(const worker::v1::ConfigureRequest& request,
                                          const ModelConfig& config);
absl::StatusOr<ExchangeShape> ShapeFromRequest(const worker::v1::ConfigureRequest& request,
                                               const ModelConfig& config);
// "auto" is the best level of this machine. Unimplemented for one that it lacks.
absl::StatusOr<kernels::Isa> IsaFromName(const std::string& name);

}  // namespace thermocline
