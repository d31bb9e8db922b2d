// Reads a ConfigureRequest: every number in it is checked against the model before it is used.
#pragma once

#include "absl/status/statusor.h"
#include "common/exchange/segment.h"
#include "common/model/config.h"
#include "common/worker/shard_spec.h"
#include "proto/worker.pb.h"

namespace thermocline {

// InvalidArgument names the field.
absl::StatusOr<ShardSpec> SpecFromRequest(const worker::v1::ConfigureRequest& request,
                                          const ModelConfig& config);
absl::StatusOr<ExchangeShape> ShapeFromRequest(const worker::v1::ConfigureRequest& request,
                                               const ModelConfig& config);

}  // namespace thermocline
