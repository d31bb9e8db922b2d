// Makes a predictor folder: runs the model on a text, sets thresholds, trains the predictor, plans,
// writes. What a user says is solve_options.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/cli/program.h"
#include "coordinator/engine/fleet.h"
#include "coordinator/engine/model_header.h"
#include "kernels/ops.h"
#include "solver/predictor/train.h"
#include "solver/profile/calibration.h"
#include "solver/profile/cost.h"
#include "solver/profile/output_folder.h"
#include "solver/profile/predictor_maker.h"
#include "solver/profile/report.h"
#include "solver/profile/solve_options.h"
#include "solver/profile/solve_progress.h"

namespace thermocline {

class Solve {
 public:
  // Both must outlive this.
  Solve(const SolveOptions& options, const Program& program)
      : options_(options), program_(program) {}

  // Cancelled after a signal; the folder is then as it was before.
  absl::Status Run();

 private:
  absl::Status OpenModel();
  absl::Status ImportCounts();
  absl::Status RunModel();
  absl::Status ReadCalibration();
  // How many samples of how many layers fit in memory at a time.
  absl::Status PlanPasses();
  absl::Status CaptureText(const std::vector<int32_t>& layers, int64_t n_samples,
                           double expected_s);
  absl::Status ProfileLayers();
  absl::Status ProfileLayer(int32_t layer);
  absl::Status TrainLayers();
  absl::Status WriteProfileAndPredictor();
  absl::Status MeasureQuality();
  absl::Status WriteFolder();

  FleetOptions FleetToStart() const;
  // Those whose quality is measured, with what is measured.
  struct ModeToMeasure {
    std::string mode;
    int32_t sketch_bits;
    float* kl;
  };
  std::vector<ModeToMeasure> ModesToMeasure();
  bool is_relu() const { return IsRelu(model_->config().activation); }
  const GgufTensor& Gate(int64_t layer) const;
  int64_t SampleBytes(int64_t n_layers, int64_t n_samples) const;
  absl::Status DryRun() const;

  const SolveOptions& options_;
  const Program& program_;
  std::unique_ptr<ModelHeader> model_;
  std::unique_ptr<OutputFolder> folder_;
  const kernels::Ops* ops_ = nullptr;
  int n_threads_ = 1;
  Calibration calibration_;
  std::vector<Window> set_aside_;  // of the calibration text, to measure quality on
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<PredictorMaker> maker_;  // null: no predictor
  int64_t n_first_samples_ = 0;            // of each layer, in the first run of the text
  int64_t n_samples_ = 0;                  // that predictors are trained on
  int64_t layers_at_once_ = 0;             // in a further run; 0: there is none
  SolveCost cost_;
  std::unique_ptr<SolveProgress> progress_;
  std::vector<TrainedLayer> trained_;  // [n_layers]
  SolveReport report_;
};

}  // namespace thermocline
