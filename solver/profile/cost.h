// What solve costs, by counted operations: for the time left, and for what a user is told before.
#pragma once

#include <cstdint>
#include <string>

#include "solver/placement/model_shape.h"

namespace thermocline {

// Multiplications and additions, each counted.
struct SolveCost {
  double forward = 0;   // the calibration text through the layers
  double profile = 0;   // gates and sketches of samples, thresholds
  double ranks = 0;     // closed forms, and what each rank would compute
  double training = 0;  // closed forms again, descent, thresholds
  double quality = 0;   // text set aside, in mode off and in each of the others
  // Of these two, what runs on one thread: decompositions in f64.
  double ranks_alone = 0, training_alone = 0;

  // With so many threads, at the rates a thread reached when they were measured (cost.cc).
  double forward_s(int n_threads) const;
  double profile_s(int n_threads) const;
  double ranks_s(int n_threads) const;
  double training_s(int n_threads) const;
  double quality_s(int n_threads) const;
  double total_s(int n_threads) const;
};

struct SolvePass {
  int64_t n_tokens = 0;   // of text that is run
  int64_t n_samples = 0;  // of FFN inputs of each layer
  int64_t n_runs = 1;     // of the text: more when not all layers' samples fit in memory
  int64_t n_quality = 0;  // tokens set aside, run twice in each of n_modes
  int n_modes = 0;
  double mean_rank = 0;  // of predictors; 0: none
  int n_epochs = 0;
};

SolveCost CountOperations(const ModelShape& shape, const SolvePass& pass);

// "about 25 minutes".
std::string DurationText(double seconds);

}  // namespace thermocline
