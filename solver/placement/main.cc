// `plan`: who should hold which part of a model on a machine, and how fast that would be.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "common/util/replace_file.h"
#include "common/util/status_macros.h"
#include "common/util/version.h"
#include "solver/placement/plan_options.h"
#include "solver/placement/plan_report.h"
#include "solver/placement/published.h"
#include "solver/placement/stream_tokens.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Plans a model for a machine, and predicts the time of a token.\n"
    "  plan -m MODEL.gguf --predictor-path DIR -o plan.json\n"
    "  plan --dry-run --shape 70b --type q4_k_m --hidden-activation relu --hardware "
    "\"rtx4090+2x(64GiB,100GB/s)\"";
constexpr int kExitError = 1, kExitUsage = 2;

absl::Status Print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return absl::OkStatus();
  return absl::UnavailableError("can't write to standard output");
}

absl::Status WriteText(const std::string& text, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplaceFile> file, ReplaceFile::Create(path));
  RETURN_IF_ERROR(file->Write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file->Commit();
}

absl::Status Compare(const PlanOptions& options) {
  if (options.checks_published) {
    ASSIGN_OR_RETURN(const std::vector<PublishedRate> rates, ComparePublished());
    RETURN_IF_ERROR(Print(PublishedTable(rates)));
  }
  return options.shows_guide ? Print(GuideTables()) : absl::OkStatus();
}

absl::Status MakePlan(const PlanOptions& options) {
  if (options.compares_only()) return Compare(options);
  ASSIGN_OR_RETURN(const PlanInputs inputs, ReadPlanInputs(options));
  ASSIGN_OR_RETURN(PlannedFleet fleet, PlanHotCold(inputs.shape, inputs.hardware, inputs.firing,
                                                   inputs.modes, inputs.request));
  fleet.plan.model_hash = inputs.model_hash;
  const StreamChoice streaming = ChooseStreaming(inputs.shape, inputs.hardware, fleet, kUsualBatch);
  fleet.plan.stream_tokens = streaming.tokens;
  if (!inputs.model_hash.empty()) {
    RETURN_IF_ERROR(CheckPlan(fleet.plan, inputs.shape.config, inputs.model_hash,
                              inputs.has_profile ? &inputs.profile : nullptr));
  }
  if (!options.output_path.empty()) RETURN_IF_ERROR(WritePlan(fleet.plan, options.output_path));
  if (!options.svg_path.empty()) {
    const std::string svg = PlanSvg(inputs.shape, inputs.hardware, fleet);
    RETURN_IF_ERROR(WriteText(svg, options.svg_path));
  }
  if (options.quiet) return absl::OkStatus();
  RETURN_IF_ERROR(Print(PlanTable(inputs.shape, inputs.hardware, fleet)));
  if (streaming.tokens == 0) return absl::OkStatus();
  return Print(fmt::format(
      "prompts of {} tokens and more stream the neurons of CPUs to GPUs: of {} tokens {:.0f} ms "
      "instead of {:.0f}\n",
      streaming.tokens, kUsualBatch, streaming.stream_ms, streaming.cpu_ms));
}

int Main(int argc, char** argv) {
  PlanOptions options;
  FlagSet flags("plan", kUsage);
  AddPlanFlags(&flags, &options);
  absl::Status status = flags.Parse(argc, argv);
  const auto fail = [](const absl::Status& error, int exit_code) {
    std::string line(error.message());
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::fputs(fmt::format("plan: error: {}\n", line).c_str(), stderr);
    return exit_code;
  };
  if (flags.help() || flags.version()) {
    status = Print(flags.help() ? flags.Help() : fmt::format("thermocline {}\n", kVersion));
    return status.ok() ? 0 : fail(status, kExitError);
  }
  if (status.ok()) status = options.Check();
  if (!status.ok()) return fail(status, kExitUsage);
  status = MakePlan(options);
  return status.ok() ? 0 : fail(status, kExitError);
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
