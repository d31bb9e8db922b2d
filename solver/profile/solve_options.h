// The command line of build/bin/solve, and what it means.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/util/flags.h"
#include "solver/placement/hot_cold.h"
#include "solver/placement/model_shape.h"

namespace thermocline {

struct SolveOptions {
  std::string model_path, output_path;
  std::string hidden_activation;  // "": as the file says
  std::string calibration_path;   // "": the shipped text
  std::string activation_dir;     // PowerInfer's statistics instead of a run
  int64_t n_tokens = 65536;       // of the text
  double recall_pct = 98;
  double skip_pct = 25;  // of the neurons that fire, that mode threshold leaves out
  bool has_predictor = true;
  double predictor_budget_pct = 6;  // of the model's bytes
  double mass_pct = 99;             // of the activation mass, that the predictor keeps
  int64_t n_epochs = 3;
  int64_t n_gpu_layers = kAutoLayers;
  double gpu_memory_gib = 0;
  std::string hardware;  // "": this machine, with a GPU if gpu_memory_gib says so
  int64_t n_ctx = 4096;  // that the plan is for
  int64_t n_threads = 0, n_workers = 0;
  double sample_memory_gib = 0;  // 0: half of what is free once the model is loaded
  int64_t seed = 1;
  std::string isa = "auto";
  std::string plot_path;
  bool is_dry_run = false;
  ShapeDescription described;  // with a dry run, instead of a model
  bool quiet = false, verbose = false;

  // InvalidArgument for what is missing and for flags that do not go together.
  absl::Status Check() const;
};

void AddSolveFlags(FlagSet* flags, SolveOptions* options);

}  // namespace thermocline
