// Finds a predictor's tensors in a file and checks every one, its numbers included.
//
// predictor.gguf:
//   general.architecture                     "thermocline-predictor"
//   thermocline.model_hash                   string
//   thermocline.predictor.thresholds         f32 [n_layers]
//   thermocline.predictor.reads_residual     bool
//   thermocline.predictor.has_relu           bool
//   blk.N.fc1.weight [rank, d_model], blk.N.fc2.weight [d_ff, rank]    any computed type
//   blk.N.fc2.bias [d_ff]                                              F32, optional
// A PowerInfer model holds the same tensors (no bias) and powerinfer.sparse_threshold.
#include "common/model/predictor.h"

#include <fmt/format.h>

#include <memory>

#include "common/gguf/finite.h"
#include "common/gguf/format_types.h"
#include "common/model/own_file.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr char kKind[] = "thermocline-predictor";
constexpr char kModelHash[] = "thermocline.model_hash";
constexpr char kThresholds[] = "thermocline.predictor.thresholds";
constexpr char kReadsResidual[] = "thermocline.predictor.reads_residual";
constexpr char kHasRelu[] = "thermocline.predictor.has_relu";
constexpr char kPowerInferThreshold[] = "powerinfer.sparse_threshold";

// Finds tensors of a file; every error names the file and the tensor.
class Tensors {
 public:
  explicit Tensors(const GgufFile& file) : file_(file) {}

  absl::Status Wrong(const std::string& what) const {
    return absl::InvalidArgumentError(fmt::format("{}: {}", file_.path(), what));
  }

  // A matrix [rows, columns] of finite weights; rows < 0: as many as it has.
  absl::StatusOr<const GgufTensor*> Matrix(const std::string& name, int64_t rows,
                                           int64_t columns) const {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) return Wrong(fmt::format("tensor '{}' is missing", name));
    const bool fits = tensor->dims[0] == columns && tensor->n_rows() == tensor->dims[1] &&
                      (rows < 0 || tensor->dims[1] == rows);
    if (!fits) {
      return Wrong(fmt::format("tensor '{}' has {} rows of {}, not {} of {}", name,
                               tensor->n_rows(), tensor->dims[0],
                               rows < 0 ? "any number" : fmt::format("{}", rows), columns));
    }
    if (tensor->info() == nullptr) {
      return Wrong(fmt::format("tensor '{}' has type {}, which is not computed here", name,
                               TensorTypeName(tensor->type)));
    }
    RETURN_IF_ERROR(CheckFinite(*tensor));
    return tensor;
  }

  // A vector [n] of F32, or null when the file has none.
  absl::StatusOr<const GgufTensor*> OptionalVector(const std::string& name, int64_t n) const {
    if (file_.FindTensor(name) == nullptr) return nullptr;
    ASSIGN_OR_RETURN(const GgufTensor* tensor, Matrix(name, 1, n));
    if (tensor->type == TensorType::kF32) return tensor;
    return Wrong(
        fmt::format("tensor '{}' has type {}, it must be F32", name, TensorTypeName(tensor->type)));
  }

 private:
  absl::Status CheckFinite(const GgufTensor& tensor) const {
    const int64_t at = FirstNotFinite(tensor.type, file_.TensorBytes(tensor));
    file_.DropPages(tensor.file_offset, tensor.n_bytes);
    if (at < 0) return absl::OkStatus();
    return Wrong(
        fmt::format("tensor '{}' holds {} that is not a finite number at row {}, column {}",
                    tensor.name, tensor.info()->is_float ? "a weight" : "the scale of a block",
                    at / tensor.dims[0], at % tensor.dims[0]));
  }

  const GgufFile& file_;
};

absl::StatusOr<PredictorLayer> ReadLayer(const Tensors& tensors, const ModelConfig& config,
                                         int64_t i, float threshold) {
  PredictorLayer layer;
  layer.threshold = threshold;
  ASSIGN_OR_RETURN(layer.fc1,
                   tensors.Matrix(fmt::format("blk.{}.fc1.weight", i), -1, config.d_model));
  layer.rank = layer.fc1->dims[1];
  ASSIGN_OR_RETURN(layer.fc2,
                   tensors.Matrix(fmt::format("blk.{}.fc2.weight", i), config.d_ff, layer.rank));
  ASSIGN_OR_RETURN(layer.bias,
                   tensors.OptionalVector(fmt::format("blk.{}.fc2.bias", i), config.d_ff));
  return layer;
}

absl::StatusOr<Predictor> ReadPowerInfer(const GgufFile& model, const ModelConfig& config) {
  Predictor predictor = {.reads_residual = true, .has_relu = true, .layers = {}};
  double threshold = 0;  // PowerInfer's own default
  if (model.Has(kPowerInferThreshold)) {
    ASSIGN_OR_RETURN(threshold, model.GetFloat(kPowerInferThreshold));
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    ASSIGN_OR_RETURN(PredictorLayer layer,
                     ReadLayer(Tensors(model), config, i, static_cast<float>(threshold)));
    predictor.layers.push_back(layer);
  }
  return predictor;
}

absl::StatusOr<Predictor> ReadOurs(const GgufFile& file, const ModelConfig& config) {
  const Tensors tensors(file);
  Predictor predictor;
  ASSIGN_OR_RETURN(predictor.reads_residual, file.GetBool(kReadsResidual));
  ASSIGN_OR_RETURN(predictor.has_relu, file.GetBool(kHasRelu));
  ASSIGN_OR_RETURN(const std::vector<float> thresholds, file.GetFloats(kThresholds));
  if (std::ssize(thresholds) != config.n_layers) {
    return tensors.Wrong(fmt::format("key '{}' holds {} values, the model has {} layers",
                                     kThresholds, thresholds.size(), config.n_layers));
  }
  size_t n_read = 0;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    ASSIGN_OR_RETURN(PredictorLayer layer, ReadLayer(tensors, config, i, thresholds[i]));
    predictor.layers.push_back(layer);
    n_read += layer.bias == nullptr ? 2 : 3;
  }
  if (file.tensors().size() == n_read) return predictor;
  return tensors.Wrong(fmt::format("holds {} tensors, {} of which belong to the model's {} layers",
                                   file.tensors().size(), n_read, config.n_layers));
}

absl::Status CheckMadeFor(const GgufFile& file, const std::string& model_hash) {
  RETURN_IF_ERROR(CheckFileKind(file, kKind));
  ASSIGN_OR_RETURN(const std::string made_for, file.GetString(kModelHash));
  if (made_for == model_hash) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format("{}: is the predictor of model {}, not of {}",
                                                   file.path(), Quoted(made_for),
                                                   Quoted(model_hash)));
}

bool HoldsAny(const GgufFile& model, const ModelConfig& config) {
  for (int64_t i = 0; i < config.n_layers; ++i) {
    for (const char* name : {"fc1", "fc2"}) {
      if (model.FindTensor(fmt::format("blk.{}.{}.weight", i, name)) != nullptr) return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<Predictor> PredictorOfModel(const GgufFile& model, const ModelConfig& config) {
  if (!HoldsAny(model, config)) {
    return absl::NotFoundError(
        fmt::format("{}: holds no predictor (blk.N.fc1.weight, blk.N.fc2.weight); make one with "
                    "solve and name its folder with --predictor-path",
                    model.path()));
  }
  absl::StatusOr<Predictor> predictor = ReadPowerInfer(model, config);
  if (predictor.ok()) return predictor;
  return WithRemedy(predictor.status(), "convert the model again, or use its stock GGUF");
}

absl::StatusOr<Predictor> ReadPredictor(const GgufFile& file, const ModelConfig& config,
                                        const std::string& model_hash) {
  const absl::Status made_for = CheckMadeFor(file, model_hash);
  absl::StatusOr<Predictor> predictor =
      made_for.ok() ? ReadOurs(file, config) : absl::StatusOr<Predictor>(made_for);
  if (predictor.ok()) return predictor;
  return WithRemedy(predictor.status(), "make a predictor for this model with solve");
}

}  // namespace thermocline
