// What solve found out, for people and programs: report.json of a predictor folder, and a table.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/gguf/tensor_type.h"
#include "common/model/config.h"
#include "common/model/profile.h"

namespace thermocline {

struct PredictorSummary {
  int64_t rank = 0, n_bytes = 0;
  Selection selection;
  double first_loss = 0, loss = 0;  // as TrainedLayer
};

struct SolveReport {
  std::string model;  // its file's name
  ModelConfig config;
  TensorType gate_type = TensorType::kF32;
  std::string text;  // the calibration text's path, or the folder of imported statistics
  Profile profile;
  std::vector<PredictorSummary> predictor;               // [n_layers], or empty
  std::string no_predictor;                              // why there is none
  int64_t n_samples = 0;                                 // of FFN inputs, of each layer
  std::string plan_error;                                // why there is no plan.json, or ""
  std::string quality_error;                             // why not all was measured, or ""
  std::vector<std::pair<std::string, double>> stages_s;  // how long what took
};

// Share of a layer's neurons that fire for a token, on average.
double FiringShare(const Profile& profile, int64_t layer);

std::string ReportJson(const SolveReport& report);
// One row a layer, and a last one for all of them.
std::string ReportTable(const SolveReport& report);

}  // namespace thermocline
