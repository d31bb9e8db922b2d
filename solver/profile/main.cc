// `solve`: prepares a model for sparse execution.
#include <new>
#include <optional>

#include "coordinator/cli/program.h"
#include "fmt/format.h"
#include "solver/profile/solve.h"
#include "solver/profile/solve_options.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Prepares a model for sparse execution, once: runs it on a text, records which neurons fire,\n"
    "sets thresholds, trains the predictor of a ReLU model, and plans.\n"
    "  solve --model MODEL.gguf --output DIR --target-gpu-layers 20 --gpu-memory-gb 16\n"
    "Then: main -m MODEL.gguf --predictor-path DIR";

absl::Status Run(const SolveOptions& options, const Program& program) {
  try {
    return Solve(options, program).Run();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "no memory; smaller --tokens or --sample-memory-gb need less");
  }
}

int Main(int argc, char** argv) {
  Program program("solve");
  SolveOptions options;
  FlagSet flags("solve", kUsage);
  AddSolveFlags(&flags, &options);
  const std::optional<int> exit_code =
      program.ReadFlags(&flags, argc, argv, [&] { return options.Check(); });
  if (exit_code.has_value()) return *exit_code;
  program.SetVerbosity(options.quiet, options.verbose);
  return program.Finish(Run(options, program));
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
