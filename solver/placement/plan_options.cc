// The table of flags of build/bin/plan and the reading of what they name.
#include "solver/placement/plan_options.h"

#include <charconv>

#include "absl/strings/str_join.h"
#include "common/gguf/gguf_file.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int64_t kMaxContext = int64_t{1} << 24;
constexpr int64_t kMaxThreads = 4096;

absl::Status ParseGpuLayers(const std::string& text, int64_t* value) {
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

absl::Status InFile(const std::string& path, const absl::Status& status) {
  const std::string message(status.message());
  return {status.code(),
          message.find(path) != std::string::npos ? message : fmt::format("{}: {}", path, message)};
}

absl::Status ReadModel(const PlanOptions& options, PlanInputs* inputs) {
  if (options.is_described()) {
    ShapeDescription description = options.description;
    description.is_relu = options.activation == "relu";
    description.predictor_share = options.predictor_pct / 100;
    ASSIGN_OR_RETURN(inputs->shape, DescribeShape(description));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(options.model_path));
  ASSIGN_OR_RETURN(inputs->shape, ShapeOfGguf(*file));
  inputs->model_hash = file->ContentHash();
  if (!options.activation.empty()) {
    ASSIGN_OR_RETURN(inputs->shape.config.activation, ParseActivation(options.activation));
  }
  if (!options.predictor_path.empty()) {
    const std::string path = options.predictor_path + "/predictor.gguf";
    const absl::StatusOr<std::unique_ptr<GgufFile>> predictor = GgufFile::Open(path);
    // A model may have a profile only.
    if (absl::IsNotFound(predictor.status())) return absl::OkStatus();
    RETURN_IF_ERROR(predictor.status());
    RETURN_IF_ERROR(InFile(path, AddPredictor(**predictor, &inputs->shape)));
  }
  return absl::OkStatus();
}

absl::Status ReadFiring(const PlanOptions& options, PlanInputs* inputs) {
  const ModelShape& shape = inputs->shape;
  std::string path = options.profile_path;
  if (path.empty() && !options.predictor_path.empty()) {
    path = options.predictor_path + "/profile.gguf";
  }
  if (!path.empty()) {
    ASSIGN_OR_RETURN(inputs->profile, ReadProfile(path));
    RETURN_IF_ERROR(CheckProfile(inputs->profile, path, inputs->model_hash, shape.config.n_layers,
                                 shape.config.d_ff));
    inputs->has_profile = true;
    inputs->firing = {FiringOfProfile(inputs->profile, shape), ProfileHash(inputs->profile)};
    return absl::OkStatus();
  }
  FiringCurve curve = DefaultCurve(shape);
  if (options.firing_pct > 0) curve.firing = options.firing_pct / 100;
  const bool is_relu = IsRelu(shape.config.activation);
  // Of a file without a profile we do not know which neurons are hot.
  const bool has_order = options.is_described() && is_relu;
  if (!has_order) curve.hot_share = curve.hot_mass = 1;
  inputs->firing = {FiringOfCurve(shape, curve), has_order ? "described" : ""};
  return absl::OkStatus();
}

}  // namespace

void AddPlanFlags(FlagSet* flags, PlanOptions* options) {
  flags->Group("Model");
  flags->String({"-m", "--model"}, "FILE", &options->model_path,
                "a GGUF file; only its header is read");
  flags->String({"--shape"}, "NAME", &options->description.shape,
                "a described model instead: " + absl::StrJoin(DescribedShapeNames(), ", "));
  flags->Choice({"--type"}, DescribedTypeNames(), &options->description.type,
                "weights of the described model");
  flags->Choice({"--hidden-activation"}, {"silu", "relu"}, &options->activation,
                "instead of what the file or shape says: relu is a model's ReLU variant");
  flags->Float({"--firing"}, "PCT", &options->firing_pct, 0, 100,
               "neurons of a described model that fire for a token; 0: as published");
  flags->Float({"--predictor-size"}, "PCT", &options->predictor_pct, 0, 50,
               "a described model's predictor, of its layers' weights; 0: none");
  flags->String({"--predictor-path"}, "DIR", &options->predictor_path,
                "folder with profile.gguf and predictor.gguf, as solve writes it");
  flags->String({"--profile"}, "FILE", &options->profile_path, "a profile.gguf alone");
  flags->Group("Machine");
  flags->String({"--hardware"}, "DESC", &options->hardware,
                "such as \"rtx4090+2x(64GiB,100GB/s)\"; without it this machine is measured");
  flags->Int({"-t", "--threads"}, "N", &options->n_threads, 0, kMaxThreads,
             "of all CPU ranks together on this machine; 0: all CPUs");
  flags->Int({"-c", "--ctx-size"}, "tokens", &options->n_ctx, 1, kMaxContext,
             "tokens of KV cache, all of which a step reads");
  flags->Custom(
      {"-ngl", "--gpu-layers", "--n-gpu-layers"}, "N",
      [options](const std::string& text) { return ParseGpuLayers(text, &options->n_gpu_layers); },
      "layers that lie on a GPU as a whole; auto: whatever is fastest (default: auto)");
  flags->Float({"--vram-budget"}, "GiB", &options->vram_budget_gib, 0, 4096,
               "of each GPU's memory, a promise; 0: all of it");
  flags->Group("Sparsity");
  flags->Choice({"--sparsity"}, {"auto", "off", "exact", "predict", "sketch", "threshold"},
                &options->sparsity, "which neurons a step leaves out");
  flags->Float({"--quality"}, "PCT", &options->quality_pct, 0, 100,
               "auto: perplexity may rise by so much");
  flags->Group("Output");
  flags->String({"-o", "--output"}, "FILE", &options->output_path, "the plan, for main --plan");
  flags->String({"--svg"}, "FILE", &options->svg_path, "a picture of the plan");
  flags->Bool({"--dry-run"}, &options->is_dry_run, "print only; no plan is written");
  flags->Bool({"--check-published"}, &options->checks_published,
              "print peers' published rates beside the cost model's, and end");
  flags->Bool({"--guide-tables"}, &options->shows_guide,
              "print the user guide's tables beside the cost model's answers, and end");
  flags->Bool({"--quiet", "-q"}, &options->quiet, "no table");
}

absl::Status PlanOptions::Check() const {
  if (compares_only()) return absl::OkStatus();
  if (model_path.empty() == !is_described()) {
    return absl::InvalidArgumentError(
        "give either a model with -m FILE.gguf or a described one with --shape NAME");
  }
  if (is_described() && !(predictor_path.empty() && profile_path.empty())) {
    return absl::InvalidArgumentError("a profile belongs to a file: give it with -m, not --shape");
  }
  if (!predictor_path.empty() && !profile_path.empty()) {
    return absl::InvalidArgumentError(
        "--predictor-path has a profile already; give it or --profile");
  }
  if (!output_path.empty() && (is_dry_run || is_described())) {
    return absl::InvalidArgumentError(
        "a plan is written for a model file only, and not with --dry-run: leave -o out");
  }
  if (!hardware.empty() && n_threads > 0) {
    return absl::InvalidArgumentError(
        "--threads is for this machine; in --hardware write (64GiB,100GB/s,threads=N)");
  }
  return absl::OkStatus();
}

absl::StatusOr<PlanInputs> ReadPlanInputs(const PlanOptions& options) {
  PlanInputs inputs;
  if (!options.hardware.empty()) {
    ASSIGN_OR_RETURN(inputs.hardware, ParseHardware(options.hardware));
  }
  RETURN_IF_ERROR(ReadModel(options, &inputs));
  RETURN_IF_ERROR(ReadFiring(options, &inputs));
  if (options.hardware.empty()) {
    ASSIGN_OR_RETURN(inputs.hardware, MeasureHardware(options.n_threads));
  }
  ModeRequest mode_request;
  mode_request.quality_pct = options.quality_pct;
  if (options.sparsity != "auto") {
    ASSIGN_OR_RETURN(mode_request.mode, ParseSparsity(options.sparsity));
  }
  const ModeKnowledge knowledge = {inputs.has_profile ? &inputs.profile : nullptr,
                                   options.is_described()};
  ASSIGN_OR_RETURN(inputs.modes,
                   ChooseModes(inputs.shape, inputs.firing.tables, knowledge, mode_request));
  inputs.request.n_ctx = options.n_ctx;
  inputs.request.n_gpu_layers = options.n_gpu_layers;
  inputs.request.vram_budget_bytes = options.vram_budget_gib * kGib;
  return inputs;
}

}  // namespace thermocline
