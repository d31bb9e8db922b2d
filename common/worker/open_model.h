// A ConfigureRequest's model, opened and checked: what every kind of rank begins with.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/segment.h"
#include "common/gguf/gguf_file.h"
#include "common/model/config.h"
#include "common/model/predictor.h"
#include "common/worker/shard_spec.h"
#include "proto/worker.pb.h"

namespace thermocline {

struct OpenedModel {
  std::shared_ptr<const GgufFile> file;
  std::unique_ptr<GgufFile> predictor_file;  // null: the model has its own, or none is needed
  ModelConfig config;
  ShardSpec spec;
  Predictor predictor;  // empty when no layer is computed by it
  ExchangeShape exchange_shape;

  const GgufFile* of_predictor() const {
    return predictor_file != nullptr ? predictor_file.get() : file.get();
  }
};

// FailedPrecondition for another version, layout or model; InvalidArgument names the field that
// can't be; and all errors of opening a model.
absl::StatusOr<OpenedModel> OpenModel(const worker::v1::ConfigureRequest& request);

// InvalidArgument "<what> <value> is not between <min> and <max>".
absl::Status CheckRange(const char* what, int64_t value, int64_t min, int64_t max);

}  // namespace thermocline
