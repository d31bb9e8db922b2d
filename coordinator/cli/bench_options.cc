// bench's table of flags, and lists as flags' values.
#include "coordinator/cli/bench_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/str_join.h"
#include "common/plan/plan.h"
#include "common/util/status_macros.h"
#include "coordinator/cli/refused_flags.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxTokens = 1 << 20;
constexpr int64_t kMaxRepeats = 1000;

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t comma = text.find(',', begin);
    parts.push_back(text.substr(begin, comma - begin));
    if (comma == std::string::npos) return parts;
    begin = comma + 1;
  }
}

void IntList(FlagSet* flags, std::vector<std::string> names, int64_t min, int64_t max,
             std::vector<int64_t>* values, const std::string& help) {
  auto parse = [=](const std::string& text) -> absl::Status {
    ASSIGN_OR_RETURN(*values, ParseIntList(text, min, max));
    return absl::OkStatus();
  };
  flags->Custom(std::move(names), "N,...", parse,
                fmt::format("{} (default {})", help, absl::StrJoin(*values, ",")));
}

void ChoiceList(FlagSet* flags, std::vector<std::string> names, std::vector<std::string> choices,
                std::vector<std::string>* values, const std::string& help) {
  auto parse = [=](const std::string& text) -> absl::Status {
    const std::vector<std::string> parts = Split(text);
    for (const std::string& part : parts) {
      if (std::find(choices.begin(), choices.end(), part) == choices.end()) {
        return absl::InvalidArgumentError(
            fmt::format("'{}' is not one of {}", part, absl::StrJoin(choices, ", ")));
      }
    }
    *values = parts;
    return absl::OkStatus();
  };
  flags->Custom(std::move(names), absl::StrJoin(choices, "|") + ",...", parse,
                fmt::format("{} (default {})", help, absl::StrJoin(*values, ",")));
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> ParseIntList(const std::string& text, int64_t min,
                                                  int64_t max) {
  std::vector<int64_t> values;
  for (const std::string& part : Split(text)) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < min || value > max) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not a whole number from {} to {}", part, min, max));
    }
    values.push_back(value);
  }
  return values;
}

int64_t BenchOptions::MaxTokens() const {
  return std::max(*std::max_element(n_prompt.begin(), n_prompt.end()),
                  *std::max_element(n_gen.begin(), n_gen.end()));
}

void AddBenchFlags(FlagSet* flags, BenchOptions* options) {
  flags->Group("What to measure; every combination of the lists");
  IntList(flags, {"-p", "--n-prompt"}, 0, kMaxTokens, &options->n_prompt,
          "tokens of a prompt; 0: no prefill");
  IntList(flags, {"-n", "--n-gen"}, 0, kMaxTokens, &options->n_gen,
          "tokens generated, from an empty context; 0: no decode");
  IntList(flags, {"-t", "--threads"}, -1, kMaxThreads, &options->n_threads,
          "threads of all local CPU workers together; 0 or -1: the CPUs that this process may use");
  IntList(flags, {"--workers"}, 0, kMaxRanks, &options->n_workers,
          "local workers; 0: one for each NUMA node");
  ChoiceList(flags, {"--transport"}, {"auto", "shm", "grpc"}, &options->transports,
             "how partial sums travel");
  ChoiceList(flags, {"--isa"}, {"auto", "reference", "avx2", "avx512"}, &options->isas,
             "kernels to use");
  ChoiceList(flags, {"--sparsity"}, {"auto", "off", "exact", "predict", "sketch", "threshold"},
             &options->sparsities, "which neurons are left out");
  flags->Int({"-r", "--repetitions"}, "N", &options->n_repeats, 1, kMaxRepeats,
             "times each test is run; the median counts");
  flags->Choice({"-o", "--output"}, {"md", "json"}, &options->output, "a table or JSON");
  AddFleetFlags(flags, &options->fleet);
  AddRefusedFleetFlags(flags);
  flags->Refused({"-pg"}, true, "prefill and decode are measured apart; give -p and -n");
  flags->Refused({"-d", "--n-depth"}, true, "tests start from an empty context");
}

absl::Status FinishBenchOptions(const FlagSet& flags, BenchOptions* options) {
  RETURN_IF_ERROR(options->fleet.Finish(flags));
  if (options->MaxTokens() == 0) {
    return absl::InvalidArgumentError("nothing to measure: -p and -n are both 0");
  }
  FleetOptions& fleet = options->fleet.options;
  if (fleet.n_ctx == 0) fleet.n_ctx = options->MaxTokens();
  if (fleet.n_ctx < options->MaxTokens()) {
    return absl::InvalidArgumentError(fmt::format(
        "--ctx-size {} is too small for a test of {} tokens", fleet.n_ctx, options->MaxTokens()));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
