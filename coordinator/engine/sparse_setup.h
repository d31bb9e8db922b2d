// How a fleet's layers leave neurons out: the asked-for mode, a predictor folder and the model
// become the plan's modes, thresholds, and the files that workers open.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/profile.h"
#include "common/plan/plan.h"
#include "coordinator/engine/model_header.h"
#include "solver/placement/choose_modes.h"

namespace thermocline {

struct SparsityOptions {
  std::string mode = "auto";   // or a name of sparsity.h
  int32_t sketch_bits = 0;     // 0: per layer, what reads the fewest bytes
  double quality_pct = 0.1;    // auto: by how much perplexity may rise, as solve measured
  std::string predictor_path;  // the folder that solve wrote; "": none
  bool measures_recall = false;
};

// What goes with a plan. Thresholds are the profile's; in mode predict the predictor's own.
struct SparseSetup {
  std::optional<Profile> profile;
  std::string predictor_file;  // predictor.gguf; "": the model has its own, or none is needed
  std::vector<float> predictor_thresholds;  // [n_layers]; empty: no predictor
  std::vector<float> thresholds;            // [n_layers], of the plan's modes

  bool has_predictor() const { return !predictor_thresholds.empty(); }
};

// Reads and checks the folder's profile and predictor, as far as they are there. Errors name the
// file and say what to do.
absl::StatusOr<SparseSetup> OpenSparseSetup(const SparsityOptions& options,
                                            const ModelHeader& model);

// The model as the planner sees it, with the predictor in use.
absl::StatusOr<ModelShape> ShapeOfModel(const ModelHeader& model, const SparseSetup& setup);

// To plan with (choose_modes.h). FailedPrecondition when a mode needs what is not there, with what
// that is.
absl::StatusOr<ModeChoices> ModesOfLayers(const SparsityOptions& options, const ModelHeader& model,
                                          const ModelShape& shape, const SparseSetup& setup);

// Fills setup->thresholds for the plan's modes.
absl::Status SetThresholds(const ModelHeader& model, const Plan& plan, SparseSetup* setup);

}  // namespace thermocline
