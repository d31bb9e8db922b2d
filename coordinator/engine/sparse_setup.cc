// Profile and predictor of a fleet, and the modes of its layers.
#include "coordinator/engine/sparse_setup.h"

#include <filesystem>

#include "common/model/own_file.h"
#include "common/model/predictor.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

std::vector<float> ThresholdsOf(const Predictor& predictor) {
  std::vector<float> thresholds;
  for (const PredictorLayer& layer : predictor.layers) thresholds.push_back(layer.threshold);
  return thresholds;
}

bool HasThresholds(const SparseSetup& setup) {
  return setup.profile.has_value() && setup.profile->has_thresholds();
}

absl::Status Needs(const char* mode, const char* what) {
  return absl::FailedPreconditionError(fmt::format(
      "--sparsity {} needs {}: make a predictor folder with build/bin/solve and name it "
      "with --predictor-path",
      mode, what));
}

// auto without a profile: a model that brings its predictor was made for it; else what costs
// nothing.
Sparsity ModeWithoutProfile(const ModelHeader& model, const SparseSetup& setup) {
  if (!IsRelu(model.config().activation)) return Sparsity::kOff;
  return setup.has_predictor() ? Sparsity::kPredict : Sparsity::kExact;
}

absl::Status CheckMode(Sparsity mode, const ModelHeader& model, const SparseSetup& setup) {
  const bool is_relu = IsRelu(model.config().activation);
  switch (mode) {
    case Sparsity::kOff:
      return absl::OkStatus();
    case Sparsity::kThreshold:
      return HasThresholds(setup) ? absl::OkStatus() : Needs("threshold", "a profile's thresholds");
    case Sparsity::kExact:
    case Sparsity::kPredict:
    case Sparsity::kSketch:
      break;
  }
  if (!is_relu) {
    return absl::FailedPreconditionError(
        fmt::format("--sparsity {} is for ReLU models: with SiLU hardly any activation is 0. Use "
                    "threshold, or off",
                    SparsityName(mode)));
  }
  if (mode == Sparsity::kSketch && !HasThresholds(setup)) {
    return Needs("sketch", "a profile's thresholds");
  }
  if (mode == Sparsity::kPredict && !setup.has_predictor()) {
    return Needs("predict", "a predictor");
  }
  return absl::OkStatus();
}

// The model's own predictor, where it may be used: all of its weights are read to check them.
absl::Status OpenOwnPredictor(const SparsityOptions& options, const ModelHeader& model,
                              SparseSetup* setup) {
  if (options.mode != "auto" && options.mode != "predict") return absl::OkStatus();
  const absl::StatusOr<Predictor> predictor = PredictorOfModel(model.file(), model.config());
  if (absl::IsNotFound(predictor.status())) return absl::OkStatus();
  RETURN_IF_ERROR(predictor.status());
  setup->predictor_thresholds = ThresholdsOf(*predictor);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SparseSetup> OpenSparseSetup(const SparsityOptions& options,
                                            const ModelHeader& model) {
  SparseSetup setup;
  if (options.predictor_path.empty()) {
    RETURN_IF_ERROR(OpenOwnPredictor(options, model, &setup));
    return setup;
  }
  const fs::path folder = options.predictor_path;
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return absl::NotFoundError(fmt::format(
        "--predictor-path {}: no such folder; build/bin/solve makes one", options.predictor_path));
  }
  const ModelConfig& config = model.config();
  const std::string profile = folder / "profile.gguf", predictor = folder / "predictor.gguf";
  const bool has_profile = fs::exists(profile, error), has_predictor = fs::exists(predictor, error);
  if (!has_profile && !has_predictor) {
    return absl::NotFoundError(
        fmt::format("--predictor-path {}: holds neither profile.gguf nor predictor.gguf; "
                    "build/bin/solve makes such a folder",
                    options.predictor_path));
  }
  if (has_profile) {
    ASSIGN_OR_RETURN(setup.profile, ReadProfile(profile));
    RETURN_IF_ERROR(CheckProfile(*setup.profile, profile, model.file().ContentHash(),
                                 config.n_layers, config.d_ff));
  }
  if (has_predictor) {
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file,
                     OpenOwnFile(predictor, "make the predictor again with solve"));
    ASSIGN_OR_RETURN(const Predictor read,
                     ReadPredictor(*file, config, model.file().ContentHash()));
    setup.predictor_thresholds = ThresholdsOf(read);
    setup.predictor_file = predictor;
  } else {
    RETURN_IF_ERROR(OpenOwnPredictor(options, model, &setup));
  }
  return setup;
}

absl::StatusOr<ModelShape> ShapeOfModel(const ModelHeader& model, const SparseSetup& setup) {
  ASSIGN_OR_RETURN(ModelShape shape, ShapeOfGguf(model.file()));
  shape.config.activation = model.config().activation;
  if (!setup.predictor_file.empty()) {
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(setup.predictor_file));
    RETURN_IF_ERROR(AddPredictor(*file, &shape));
  } else if (setup.has_predictor()) {
    RETURN_IF_ERROR(AddPredictor(model.file(), &shape));
  }
  return shape;
}

absl::StatusOr<ModeChoices> ModesOfLayers(const SparsityOptions& options, const ModelHeader& model,
                                          const ModelShape& shape, const SparseSetup& setup) {
  std::optional<Sparsity> wanted;
  if (options.mode != "auto") {
    ASSIGN_OR_RETURN(wanted, ParseSparsity(options.mode));
    RETURN_IF_ERROR(CheckMode(*wanted, model, setup));
  }
  const bool has_bits = wanted == Sparsity::kSketch && options.sketch_bits > 0;
  if (setup.profile.has_value() && !has_bits) {
    return ChooseModes(shape, FiringOfProfile(*setup.profile, shape), {.profile = &*setup.profile},
                       {.mode = wanted, .quality_pct = options.quality_pct});
  }
  const Sparsity mode = wanted.value_or(ModeWithoutProfile(model, setup));
  std::vector<LayerMode> modes(shape.layers.size(), {mode, has_bits ? options.sketch_bits : 0, 1});
  for (size_t i = 0; i < modes.size() && has_bits; ++i) {
    modes[i].computed = setup.profile->layers[i].sketch[options.sketch_bits - 1].computed;
  }
  return ModeChoices{modes};
}

absl::Status SetThresholds(const ModelHeader& model, const Plan& plan, SparseSetup* setup) {
  setup->thresholds.assign(plan.layers.size(), 0.0f);
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    RETURN_IF_ERROR(CheckMode(layer.mode, model, *setup));
    float* threshold = &setup->thresholds[i];
    if (layer.mode == Sparsity::kPredict) *threshold = setup->predictor_thresholds[i];
    if (layer.mode == Sparsity::kSketch) {
      *threshold = setup->profile->layers[i].sketch[layer.sketch_bits - 1].threshold;
    }
    if (layer.mode == Sparsity::kThreshold) {
      *threshold = setup->profile->layers[i].magnitude.threshold;
    }
  }
  return absl::OkStatus();
}

}  // namespace thermocline
