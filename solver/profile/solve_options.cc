// The table of solve's flags.
#include "solver/profile/solve_options.h"

#include <fmt/format.h>

#include <charconv>

#include "absl/strings/str_join.h"
#include "common/plan/plan.h"
#include "common/util/status_macros.h"
#include "solver/placement/hardware.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxThreads = 4096;
constexpr int64_t kMaxTokens = int64_t{1} << 26;
constexpr int64_t kMaxContext = int64_t{1} << 24;

absl::Status ParseLayers(const std::string& text, int64_t* value) {
  if (text == "auto" || text == "all") {
    *value = text == "auto" ? kAutoLayers : kAllLayers;
    return absl::OkStatus();
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (error != std::errc() || end != text.data() + text.size() || *value < kAllLayers) {
    return absl::InvalidArgumentError("give a number of layers, 'auto' or 'all'");
  }
  return absl::OkStatus();
}

void AddPreparationFlags(FlagSet* flags, SolveOptions* options) {
  flags->Group("Profile");
  flags->String(
      {"--calibration"}, "FILE", &options->calibration_path,
      "text to run the model on; without it the shipped one (English books, in the public domain)");
  flags->Int(
      {"--tokens"}, "N", &options->n_tokens, 16, kMaxTokens,
      "tokens of the text, spread over it, that are run; some are set aside (four windows of "
      "1024, fewer of short texts) to measure each mode on");
  flags->Float({"--recall"}, "PCT", &options->recall_pct, 50, 100,
               "of a layer's firings, that sketches must not rule out");
  flags->Float(
      {"--skip"}, "PCT", &options->skip_pct, 0, 99,
      "of a layer's neurons that fire (without ReLU: of all), that mode threshold leaves out");
  flags->String(
      {"--activation-dir"}, "DIR", &options->activation_dir,
      "take firing counts from PowerInfer's activation_N.pt and run nothing: a profile for "
      "plans, without thresholds and predictor");
  flags->Group("Predictor");
  flags->BoolOff({"--no-predictor"}, &options->has_predictor, "profile and thresholds only");
  flags->Float({"--predictor-budget"}, "PCT", &options->predictor_budget_pct, 0.1, 100,
               "size of the predictor, of the model's bytes, at most");
  flags->Float({"--predictor-mass"}, "PCT", &options->mass_pct, 50, 100,
               "of a layer's activation mass, that the predictor must not rule out");
  flags->Int({"--epochs"}, "N", &options->n_epochs, 0, 1000,
             "passes of training over the samples; 0: the closed form alone");
  flags->Int({"--seed"}, "N", &options->seed, 0, INT64_MAX, "of the order of windows and samples");
}

void AddPlanFlags(FlagSet* flags, SolveOptions* options) {
  flags->Group("Plan");
  flags->Custom(
      {"--target-gpu-layers"}, "N",
      [options](const std::string& text) { return ParseLayers(text, &options->n_gpu_layers); },
      "layers that lie on the GPU as a whole; auto: whatever is fastest (default: auto)");
  flags->Float({"--gpu-memory-gb"}, "GiB", &options->gpu_memory_gib, 0, 4096,
               "memory of the GPU to plan for; 0: none. A promise: the plan stays under it");
  flags->String({"--hardware"}, "DESC", &options->hardware,
                "machine to plan for, such as \"rtx4090+2x(64GiB,100GB/s)\"; without it this one");
  flags->Int({"-c", "--ctx-size"}, "tokens", &options->n_ctx, 1, kMaxContext,
             "of context, that the plan leaves room for");
}

}  // namespace

void AddSolveFlags(FlagSet* flags, SolveOptions* options) {
  flags->Group("Model and result");
  flags->String({"-m", "--model"}, "FILE", &options->model_path, "the model, a GGUF file");
  flags->String(
      {"-o", "--output"}, "DIR", &options->output_path,
      "folder to make: predictor.gguf, profile.gguf, plan.json, report.json. One that solve "
      "made before is replaced when the new one is whole");
  flags->Choice({"--hidden-activation"}, {"silu", "relu", "relu_relu"}, &options->hidden_activation,
                "instead of what the file says");
  flags->String({"--plot"}, "FILE", &options->plot_path,
                "SVG: the share of firings that the hottest neurons of each layer have");
  AddPreparationFlags(flags, options);
  AddPlanFlags(flags, options);
  flags->Group("This machine");
  flags->Int({"-t", "--threads"}, "N", &options->n_threads, 0, kMaxThreads,
             "0: the CPUs that this process may use");
  flags->Int({"--workers"}, "N", &options->n_workers, 0, kMaxRanks,
             "local workers that run the model; 0: one for each NUMA node");
  flags->Float(
      {"--sample-memory-gb"}, "GiB", &options->sample_memory_gib, 0, 65536,
      "for samples, at most; where they do not fit the text is run several times. 0: half of "
      "what is free");
  flags->Choice({"--isa"}, {"auto", "reference", "avx2", "avx512"}, &options->isa,
                "kernels of the workers");
  flags->Bool({"--dry-run"}, &options->is_dry_run, "only say how long it would take");
  flags->String({"--shape"}, "NAME", &options->described.shape,
                "with --dry-run, a described model: " + absl::StrJoin(DescribedShapeNames(), ", "));
  flags->Choice({"--type"}, DescribedTypeNames(), &options->described.type,
                "weights of the described model");
  flags->Group("Output");
  flags->Bool({"--quiet", "-q"}, &options->quiet, "nothing but errors");
  flags->Bool({"--verbose", "-v"}, &options->verbose, "say more of what happens");
}

absl::Status SolveOptions::Check() const {
  const bool is_described = !described.shape.empty();
  if (is_described && !is_dry_run) {
    return absl::InvalidArgumentError("--shape goes with --dry-run; a run needs -m FILE.gguf");
  }
  if (model_path.empty() != is_described) {
    return absl::InvalidArgumentError(is_described ? "give --model or --shape, not both"
                                                   : "no model given; use --model FILE.gguf");
  }
  if (output_path.empty() && !is_dry_run) {
    return absl::InvalidArgumentError("no folder for the result given; use --output DIR");
  }
  if (!activation_dir.empty() && !calibration_path.empty()) {
    return absl::InvalidArgumentError(
        "--activation-dir takes the place of a run: leave --calibration out");
  }
  bool has_gpu = gpu_memory_gib > 0;
  if (!hardware.empty()) {
    ASSIGN_OR_RETURN(const Hardware machine, ParseHardware(hardware));
    if (has_gpu && !machine.has_gpu()) {
      return absl::InvalidArgumentError(
          "--gpu-memory-gb is of a GPU, and --hardware describes none; leave one of them out");
    }
    has_gpu = machine.has_gpu();
  }
  if ((n_gpu_layers > 0 || n_gpu_layers == kAllLayers) && !has_gpu) {
    return absl::InvalidArgumentError(
        "--target-gpu-layers needs a GPU to plan for: say --gpu-memory-gb G, or --hardware");
  }
  return absl::OkStatus();
}

}  // namespace thermocline
