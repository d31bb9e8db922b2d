// `main`: text from a model, by a fleet of its own or a coordinator's. What it does is in
// conversation.h, its flags in main_options.h.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "common/util/status_macros.h"
#include "coordinator/cli/console.h"
#include "coordinator/cli/conversation.h"
#include "coordinator/cli/inference_client.h"
#include "coordinator/cli/main_options.h"
#include "coordinator/cli/program.h"
#include "coordinator/cli/start_fleet.h"
#include "coordinator/cli/stop_signals.h"
#include "coordinator/engine/inference.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Writes on where a prompt ends, with a model split over workers on this machine.\n"
    "  main -m MODEL.gguf -p \"It is a truth\" -n 64";

// *own is the fleet that the client owns.
absl::StatusOr<std::unique_ptr<InferenceClient>> StartOwnFleet(const Program& program,
                                                               const MainOptions& options,
                                                               Fleet** own) {
  ASSIGN_OR_RETURN(std::unique_ptr<Fleet> fleet, StartFleet(program, options.fleet.options));
  *own = fleet.get();
  return MakeLocalClient(std::make_unique<Inference>(std::move(fleet), /*max_waiting=*/0));
}

absl::StatusOr<std::unique_ptr<InferenceClient>> Connect(const Program& program,
                                                         const MainOptions& options) {
  const FleetOptions& fleet = options.fleet.options;
  ASSIGN_OR_RETURN(std::unique_ptr<InferenceClient> client,
                   ConnectTo(options.coordinator,
                             {.ca = fleet.tls_ca, .cert = fleet.tls_cert, .key = fleet.tls_key},
                             StopSignals::IsStopped));
  ASSIGN_OR_RETURN(const v1::ListModelsResponse models, client->ListModels(StopSignals::IsStopped));
  for (const v1::Model& model : models.models()) {
    program.Note(fmt::format("{} at {}: {} worker{}, {} tokens of context, {}", model.id(),
                             options.coordinator, model.n_workers(),
                             model.n_workers() == 1 ? "" : "s", model.n_ctx(), model.state()));
  }
  return client;
}

absl::Status Write(const Program& program, const MainOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Fleet* own = nullptr;
  ASSIGN_OR_RETURN(const std::unique_ptr<InferenceClient> client,
                   options.coordinator.empty() ? StartOwnFleet(program, options, &own)
                                               : Connect(program, options));
  const std::chrono::duration<double, std::milli> load = std::chrono::steady_clock::now() - start;
  program.Note(fmt::format("seed = {}", options.seed));

  Console console(STDIN_FILENO, STDOUT_FILENO, options.color);
  Conversation conversation(&options, client.get(), &console);
  absl::Status status = conversation.Run();
  status.Update(console.FreshLine());
  if (status.ok() || absl::IsCancelled(status)) {
    Timings timings = conversation.timings();
    timings.load_ms = load.count();
    if (!program.quiet()) std::fputc('\n', stderr);  // the text rarely ends its line
    program.Note("timings\n" + timings.Text());
    if (own != nullptr && own->state().ok()) {
      ASSIGN_OR_RETURN(const FleetTotals totals, own->Totals());
      if (totals.leaves_out()) program.Note(totals.Describe());
    }
    if (program.verbose() && status.ok()) {
      const absl::StatusOr<v1::StatsResponse> stats = client->Stats(StopSignals::IsStopped);
      program.Detail(stats.ok()
                         ? RankTable(*stats)
                         : "no figures of the ranks: " + std::string(stats.status().message()));
    }
  }
  return status;
}

int Main(int argc, char** argv) {
  Program program("main");
  MainOptions options;
  FlagSet flags("main", kUsage);
  AddMainFlags(&flags, &options);
  const std::optional<int> exit_code =
      program.ReadFlags(&flags, argc, argv, [&] { return FinishMainOptions(flags, &options); });
  if (exit_code.has_value()) return *exit_code;
  program.SetVerbosity(options.fleet.quiet, options.fleet.verbose);
  return program.Finish(Write(program, options));
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
