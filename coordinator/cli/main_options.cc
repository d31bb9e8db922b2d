// main's table of flags, and what one flag says of another.
#include "coordinator/cli/main_options.h"

#include <fmt/format.h>

#include <limits>
#include <random>

#include "common/util/status_macros.h"
#include "coordinator/cli/escapes.h"
#include "coordinator/cli/read_text.h"
#include "coordinator/cli/refused_flags.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

// What a coordinator elsewhere has decided already. (In the environment it may stand for other
// runs.)
constexpr const char* kOwnFleetOnly[] = {"-m",
                                         "-c",
                                         "-b",
                                         "-t",
                                         "--kv-type",
                                         "--activations",
                                         "--plan",
                                         "--workers",
                                         "--isa",
                                         "-ngl",
                                         "--gpu-device",
                                         "--hidden-activation",
                                         "--transport",
                                         "--quality",
                                         "--no-mmap",
                                         "-fa",
                                         "--memory-f32",
                                         "--worker-timeout",
                                         "--predictor-path",
                                         "--sketch-bits",
                                         "--measure-recall",
                                         "--vram-budget",
                                         "--reset-gpu-index",
                                         "--disable-gpu-index"};

// What a request to a running fleet may ask for.
absl::Status ReadRequestSparsity(const FlagSet& flags, MainOptions* options) {
  if (!flags.IsOnCommandLine("--sparsity")) return absl::OkStatus();
  const std::string& mode = options->fleet.options.sparsity.mode;
  if (mode == "off" || mode == "exact") {
    options->sparsity = mode == "off" ? v1::SPARSITY_OFF : v1::SPARSITY_EXACT;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "--sparsity {} is decided where a fleet starts; with --coordinator it may be off or exact",
      mode));
}

// A final newline of the file is the editor's, not the prompt's: as llama.cpp does.
absl::Status ReadPromptFile(const std::string& path, MainOptions* options) {
  ASSIGN_OR_RETURN(options->prompt, ReadText(path));
  if (options->prompt.ends_with('\n')) options->prompt.pop_back();
  options->prompt_is_file = true;
  return absl::OkStatus();
}

void AddPromptFlags(FlagSet* flags, MainOptions* options) {
  flags->Group("Prompt and output");
  flags->Custom(
      {"-p", "--prompt"}, "TEXT",
      [options](const std::string& text) {
        options->prompt_text = text;
        options->prompt_is_file = false;
        return absl::OkStatus();
      },
      "text to continue");
  flags->Custom(
      {"-f", "--file"}, "FILE",
      [options](const std::string& path) { return ReadPromptFile(path, options); },
      "text to continue, taken as it stands but for a newline at its end");
  flags->Bool({"-e", "--escape"}, &options->escape,
              "read \\n, \\r, \\t, \\', \\\", \\\\ and \\xHH in -p as what they stand for (on)");
  flags->BoolOff({"--no-escape"}, &options->escape, "take backslashes in -p as they are");
  flags->Int({"-n", "--predict", "--n-predict"}, "N", &options->max_tokens, -2, kMaxInt,
             "tokens to generate; -1: until the text ends, -2: until the context is full");
  flags->Bool({"--ignore-eos"}, &options->ignore_eos, "never choose an end token");
  flags->Bool({"-i", "--interactive"}, &options->interactive,
              "take turns: a line of yours, an answer; Ctrl-C takes the turn, twice ends");
  flags->Bool({"--color"}, &options->color, "colour the prompt and your lines, on a terminal");
  flags->BoolOff({"--no-display-prompt"}, &options->display_prompt, "print the answer only");
  flags->BoolOff({"-no-cnv", "--no-conversation"}, &options->conversation_template,
                 "accepted: no chat template is ever put around the prompt");
  flags->String({"--coordinator"}, "ADDR", &options->coordinator,
                "ask the coordinator at HOST:PORT or unix:PATH instead of starting a fleet");
}

void AddSamplingFlags(FlagSet* flags, MainOptions* options) {
  flags->Group("Sampling");
  flags->Int({"-s", "--seed"}, "N", &options->seed, -1, std::numeric_limits<uint32_t>::max(),
             "-1: a random one");
  flags->Float({"--temp", "--temperature"}, "X", &options->temperature, 0, 1e6,
               "0: always the most likely token");
  flags->Int({"--top-k"}, "N", &options->top_k, -1, kMaxInt,
             "of the N most likely; 0 or -1: of all");
  flags->Float({"--top-p"}, "X", &options->top_p, 0, 1,
               "of the most likely that together have this probability; 1: of all");
  flags->Float({"--min-p"}, "X", &options->min_p, 0, 1,
               "of those with at least this share of the best one's probability; 0: of all");
  flags->Float({"--repeat-penalty"}, "X", &options->repeat_penalty, 1e-6, 1e6,
               "logits of recent tokens are divided by it; 1: off");
  flags->Int({"--repeat-last-n"}, "N", &options->repeat_last_n, -1, kMaxInt,
             "how many tokens are recent; 0: none, -1: all");
}

int64_t RandomSeed() {
  std::random_device device;
  return std::uniform_int_distribution<int64_t>(0, kMaxInt)(device);
}

}  // namespace

void AddMainFlags(FlagSet* flags, MainOptions* options) {
  AddPromptFlags(flags, options);
  AddSamplingFlags(flags, options);
  AddFleetFlags(flags, &options->fleet);
  AddPlacementFlags(flags, &options->fleet.options);
  AddRefusedFleetFlags(flags);
  AddRefusedTextFlags(flags);
}

absl::Status FinishMainOptions(const FlagSet& flags, MainOptions* options) {
  if (!options->prompt_is_file) {
    options->prompt = options->escape ? Unescape(options->prompt_text) : options->prompt_text;
  }
  if (options->seed < 0) options->seed = RandomSeed();
  if (options->coordinator.empty()) return options->fleet.Finish(flags);
  for (const char* name : kOwnFleetOnly) {
    if (flags.IsOnCommandLine(name)) {
      return absl::InvalidArgumentError(fmt::format(
          "{} describes a fleet to start, but --coordinator asks one that runs already", name));
    }
  }
  return ReadRequestSparsity(flags, options);
}

v1::Sampling MainOptions::Sampling() const {
  v1::Sampling sampling;
  sampling.set_temperature(temperature);
  sampling.set_top_k(top_k);
  sampling.set_top_p(top_p);
  sampling.set_min_p(min_p);
  sampling.set_repeat_penalty(repeat_penalty);
  sampling.set_repeat_last_n(repeat_last_n);
  sampling.set_seed(seed);
  return sampling;
}

}  // namespace thermocline
