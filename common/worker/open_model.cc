// Versions, the file, its hash, and the request's numbers against it.
#include "common/worker/open_model.h"

#include <algorithm>

#include "common/model/tensor_table.h"
#include "common/util/status_macros.h"
#include "common/util/version.h"
#include "common/worker/read_request.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr int32_t kMaxThreads = 4096;
constexpr int32_t kMaxContext = 1 << 24;

absl::Status CheckVersion(const worker::v1::ConfigureRequest& request) {
  if (request.version() != kVersion) {
    return absl::FailedPreconditionError(
        fmt::format("this worker is version {}, the coordinator is version {}; both must be the "
                    "same",
                    kVersion, request.version()));
  }
  if (request.exchange_layout() != kExchangeLayout) {
    return absl::FailedPreconditionError(
        fmt::format("this worker's exchange has layout {}, the coordinator's has layout {}; build "
                    "both from the same source",
                    kExchangeLayout, request.exchange_layout()));
  }
  return absl::OkStatus();
}

absl::Status OpenPredictor(const worker::v1::ConfigureRequest& request, OpenedModel* model) {
  const auto predicts = [](const ShardSpec::Layer& layer) {
    return layer.mode == Sparsity::kPredict;
  };
  if (std::none_of(model->spec.layers.begin(), model->spec.layers.end(), predicts)) {
    return absl::OkStatus();
  }
  if (request.predictor_path().empty()) {
    ASSIGN_OR_RETURN(model->predictor, PredictorOfModel(*model->file, model->config));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(model->predictor_file, GgufFile::Open(request.predictor_path()));
  ASSIGN_OR_RETURN(model->predictor,
                   ReadPredictor(*model->predictor_file, model->config, request.model_hash()));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRange(const char* what, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} {} is not between {} and {}", what, value, min, max));
}

absl::StatusOr<OpenedModel> OpenModel(const worker::v1::ConfigureRequest& request) {
  RETURN_IF_ERROR(CheckVersion(request));
  RETURN_IF_ERROR(CheckRange("n_threads", request.n_threads(), 1, kMaxThreads));
  RETURN_IF_ERROR(CheckRange("n_ctx", request.n_ctx(), 1, kMaxContext));
  RETURN_IF_ERROR(CheckRange("n_slots", request.n_slots(), 1, kMaxThreads));
  OpenedModel model;
  ASSIGN_OR_RETURN(model.file, GgufFile::Open(request.model_path()));
  if (model.file->ContentHash() != request.model_hash()) {
    return absl::FailedPreconditionError(
        fmt::format("{} is another model here: its hash is {}, the coordinator's is {}",
                    request.model_path(), model.file->ContentHash(), request.model_hash()));
  }
  ASSIGN_OR_RETURN(model.config, ReadModelConfig(*model.file));
  RETURN_IF_ERROR(CheckTensors(*model.file, model.config));
  if (!request.hidden_activation().empty()) {
    ASSIGN_OR_RETURN(model.config.activation, ParseActivation(request.hidden_activation()));
  }
  ASSIGN_OR_RETURN(model.spec, SpecFromRequest(request, model.config));
  ASSIGN_OR_RETURN(model.exchange_shape, ShapeFromRequest(request, model.config));
  RETURN_IF_ERROR(OpenPredictor(request, &model));
  return model;
}

}  // namespace thermocline
