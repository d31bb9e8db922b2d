// The command line of `bench`: fleet flags, and lists of what is to be measured.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/util/flags.h"
#include "coordinator/cli/fleet_flags.h"

namespace thermocline {

struct BenchOptions {
  FleetFlags fleet;
  std::vector<int64_t> n_prompt = {512};  // 0: no prefill row
  std::vector<int64_t> n_gen = {128};     // 0: no decode row
  std::vector<int64_t> n_threads = {0};
  std::vector<int64_t> n_workers = {0};
  std::vector<std::string> transports = {"auto"};
  std::vector<std::string> isas = {"auto"};
  std::vector<std::string> sparsities = {"auto"};
  int64_t n_repeats = 5;
  std::string output = "md";

  // Positions that the longest test needs.
  int64_t MaxTokens() const;
};

void AddBenchFlags(FlagSet* flags, BenchOptions* options);
// After parsing: what one flag says of another, and the context that the tests need.
absl::Status FinishBenchOptions(const FlagSet& flags, BenchOptions* options);

// "1,2,4": InvalidArgument for what is no whole number or out of range; never empty.
absl::StatusOr<std::vector<int64_t>> ParseIntList(const std::string& text, int64_t min,
                                                  int64_t max);

}  // namespace thermocline
