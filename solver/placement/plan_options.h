// The command line of build/bin/plan, and what it means.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/util/flags.h"
#include "solver/placement/choose_modes.h"
#include "solver/placement/hot_cold.h"
#include "solver/placement/model_shape.h"

namespace thermocline {

struct PlanOptions {
  std::string model_path;
  ShapeDescription description;  // instead of a model; its shape is "" then
  std::string activation;        // "relu", "silu" or "": as the shape or file says
  double firing_pct = 0;         // described models; 0: as published
  double predictor_pct = 6;      // described models
  std::string predictor_path;    // a folder
  std::string profile_path;
  std::string hardware;  // "": this machine, measured
  int64_t n_threads = 0;
  int64_t n_ctx = 4096;
  int64_t n_gpu_layers = kAutoLayers;
  double vram_budget_gib = 0;
  std::string sparsity = "auto";
  double quality_pct = 0.1;
  std::string output_path, svg_path;
  bool is_dry_run = false;
  bool checks_published = false, shows_guide = false;
  bool quiet = false;

  bool is_described() const { return !description.shape.empty(); }
  bool compares_only() const { return checks_published || shows_guide; }
  // InvalidArgument for flags that do not go together.
  absl::Status Check() const;
};

void AddPlanFlags(FlagSet* flags, PlanOptions* options);

// All that the planner needs of the options, read and checked.
struct PlanInputs {
  ModelShape shape;
  std::string model_hash;  // "": described
  Hardware hardware;
  Profile profile;  // empty without one
  bool has_profile = false;
  FiringKnowledge firing;
  ModeChoices modes;
  PlacementRequest request;
};
absl::StatusOr<PlanInputs> ReadPlanInputs(const PlanOptions& options);

}  // namespace thermocline
