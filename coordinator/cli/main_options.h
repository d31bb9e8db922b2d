// The command line of `main`: fleet flags, the prompt, sampling, conversation.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/util/flags.h"
#include "coordinator/cli/fleet_flags.h"
#include "proto/inference.pb.h"

namespace thermocline {

struct MainOptions {
  FleetFlags fleet;
  std::string coordinator;  // address; "": a fleet of our own
  std::string prompt;
  std::string prompt_text;  // of -p, before escapes
  bool prompt_is_file = false;
  bool escape = true;
  int64_t max_tokens = -1;
  bool ignore_eos = false;
  bool interactive = false;
  bool color = false;
  bool display_prompt = true;
  bool conversation_template = false;
  double temperature = 0.8;
  int64_t top_k = 40;
  double top_p = 0.95;
  double min_p = 0.05;
  double repeat_penalty = 1.0;
  int64_t repeat_last_n = 64;
  int64_t seed = -1;

  v1::Sparsity sparsity = v1::SPARSITY_AS_PLANNED;  // asked of a coordinator

  v1::Sampling Sampling() const;
};

void AddMainFlags(FlagSet* flags, MainOptions* options);
// After parsing: what one flag says of another. Picks the seed where none was given.
absl::Status FinishMainOptions(const FlagSet& flags, MainOptions* options);

}  // namespace thermocline
