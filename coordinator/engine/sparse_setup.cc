// Profile and predictor of a fleet, and the modes of its layers.
#include "coordinator/engine/sparse_setup.h"

#include <algorithm>
#include <filesystem>

#include "common/model/predictor.h"
#include "common/model/tensor_table.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

bool HasOwnPredictor(const ModelHeader& model) {
  return PredictorOfModel(model.file(), model.config()).ok();
}

absl::Status Needs(const char* mode, const char* what) {
  return absl::FailedPreconditionError(fmt::format(
      "--sparsity {} needs {}: make a predictor folder with build/bin/solve and name it "
      "with --predictor-path",
      mode, what));
}

// Bits per gate weight that a sketch of so many bits reads, roughly: the lead of all neurons, the
// rest of those that it lets pass.
double SketchBits(const TypeInfo& type, int bits, double computed) {
  const double all = 8.0 * type.block_bytes / type.block_size;
  const double scales = bits == 1 ? 0.0 : 0.5;
  // A neuron that is computed also takes its rest, and up and down where it fires.
  return bits + scales + computed * (all - bits);
}

int32_t CheapestBits(const GgufTensor& gate, const LayerProfile& layer) {
  int32_t best = 1;
  for (int32_t bits = 2; bits <= kMaxSketchBits; ++bits) {
    const auto cost = [&](int32_t b) {
      return SketchBits(*gate.info(), b, layer.sketch[b - 1].computed);
    };
    if (cost(bits) < cost(best)) best = bits;
  }
  return best;
}

// auto: what reads the fewest bytes of what is there; without anything prepared, exact.
Sparsity AutoMode(const ModelHeader& model, const SparseSetup& setup) {
  const bool is_relu = IsRelu(model.config().activation);
  if (!is_relu) return Sparsity::kOff;
  if (HasOwnPredictor(model)) return Sparsity::kPredict;
  return setup.profile.has_value() ? Sparsity::kSketch : Sparsity::kExact;
}

absl::Status CheckMode(Sparsity mode, const ModelHeader& model, const SparseSetup& setup) {
  const bool is_relu = IsRelu(model.config().activation);
  switch (mode) {
    case Sparsity::kOff:
      return absl::OkStatus();
    case Sparsity::kThreshold:
      return setup.profile.has_value() ? absl::OkStatus() : Needs("threshold", "a profile");
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
  if (mode == Sparsity::kSketch && !setup.profile.has_value()) return Needs("sketch", "a profile");
  if (mode == Sparsity::kPredict && setup.predictor_file.empty() && !HasOwnPredictor(model)) {
    return Needs("predict", "a predictor");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SparseSetup> OpenSparseSetup(const SparsityOptions& options,
                                            const ModelHeader& model) {
  SparseSetup setup;
  if (options.predictor_path.empty()) return setup;
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
        fmt::format("--predictor-path {}: holds neither profile.gguf nor predictor.gguf",
                    options.predictor_path));
  }
  if (has_profile) {
    ASSIGN_OR_RETURN(setup.profile, ReadProfile(profile));
    RETURN_IF_ERROR(CheckProfile(*setup.profile, profile, model.file().ContentHash(),
                                 config.n_layers, config.d_ff));
  }
  if (has_predictor) {
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(predictor));
    RETURN_IF_ERROR(ReadPredictor(*file, config, model.file().ContentHash()).status());
    setup.predictor_file = predictor;
  }
  return setup;
}

absl::Status SetModes(const SparsityOptions& options, const ModelHeader& model,
                      const SparseSetup& setup, Plan* plan) {
  Sparsity mode = AutoMode(model, setup);
  if (options.mode != "auto") {
    ASSIGN_OR_RETURN(mode, ParseSparsity(options.mode));
  }
  RETURN_IF_ERROR(CheckMode(mode, model, setup));
  for (size_t i = 0; i < plan->layers.size(); ++i) {
    LayerPlan& layer = plan->layers[i];
    layer.mode = mode;
    if (mode != Sparsity::kSketch) continue;
    const GgufTensor* gate = FindRole(model.file(), Role::kFfnGate, static_cast<int64_t>(i));
    layer.sketch_bits = options.sketch_bits > 0 ? options.sketch_bits
                                                : CheapestBits(*gate, setup.profile->layers[i]);
  }
  return absl::OkStatus();
}

absl::Status SetThresholds(const ModelHeader& model, const Plan& plan, SparseSetup* setup) {
  setup->thresholds.assign(plan.layers.size(), 0.0f);
  std::unique_ptr<GgufFile> file;
  std::optional<Predictor> predictor;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    RETURN_IF_ERROR(CheckMode(layer.mode, model, *setup));
    if (layer.mode == Sparsity::kPredict && !predictor.has_value()) {
      if (setup->predictor_file.empty()) {
        ASSIGN_OR_RETURN(predictor, PredictorOfModel(model.file(), model.config()));
      } else {
        ASSIGN_OR_RETURN(file, GgufFile::Open(setup->predictor_file));
        ASSIGN_OR_RETURN(predictor,
                         ReadPredictor(*file, model.config(), model.file().ContentHash()));
      }
    }
    float* threshold = &setup->thresholds[i];
    if (layer.mode == Sparsity::kPredict) *threshold = predictor->layers[i].threshold;
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
