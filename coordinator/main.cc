// `coordinator`: the daemon. Starts a fleet and serves it over gRPC until a signal comes.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "common/rpc/channel.h"
#include "common/util/status_macros.h"
#include "coordinator/api/grpc_server.h"
#include "coordinator/cli/fleet_flags.h"
#include "coordinator/cli/program.h"
#include "coordinator/cli/refused_flags.h"
#include "coordinator/cli/start_fleet.h"
#include "coordinator/cli/stop_signals.h"
#include "coordinator/engine/inference.h"

namespace thermocline {
namespace {

constexpr char kUsage[] =
    "Serves a model over gRPC, split over workers on this machine.\n"
    "  coordinator -m MODEL.gguf --listen 127.0.0.1:50051";
constexpr std::chrono::milliseconds kGrace(2000);  // for running calls, after a signal
constexpr std::chrono::milliseconds kStatePoll(500);
constexpr int64_t kMaxQueue = 1 << 16;

struct CoordinatorOptions {
  FleetFlags fleet;
  GrpcServerOptions server = {.address = "127.0.0.1:50051", .tls = {}};
  int64_t max_queue = 64;
};

void AddFlags(FlagSet* flags, CoordinatorOptions* options) {
  flags->Group("Service");
  flags->String({"--listen"}, "ADDR", &options->server.address,
                "HOST:PORT (port 0: a free one) or unix:PATH; without TLS on this host only");
  flags->Int({"--max-queue"}, "N", &options->max_queue, 0, kMaxQueue,
             "requests that may wait behind the running one; more are refused");
  AddFleetFlags(flags, &options->fleet);
  AddPlacementFlags(flags, &options->fleet.options);
  AddRefusedFleetFlags(flags);
  for (const char* name : {"--host", "--port"}) {
    flags->Refused({name}, true, "this daemon speaks gRPC; use --listen HOST:PORT");
  }
  for (const char* name : {"--ssl-key-file", "--ssl-cert-file"}) {
    flags->Refused({name}, true,
                   "use --tls-ca, --tls-cert and --tls-key: clients show theirs, too");
  }
}

// After parsing. Tells of an address that may not be served before a model is loaded for it.
absl::Status Finish(const FlagSet& flags, CoordinatorOptions* options) {
  RETURN_IF_ERROR(options->fleet.Finish(flags));
  const FleetOptions& fleet = options->fleet.options;
  options->server.tls = {.ca = fleet.tls_ca, .cert = fleet.tls_cert, .key = fleet.tls_key};
  return ServerCredentialsFor(options->server.address, options->server.tls).status();
}

absl::Status Serve(const Program& program, const CoordinatorOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Fleet> fleet, StartFleet(program, options.fleet.options));
  Inference inference(std::move(fleet), options.max_queue);
  ASSIGN_OR_RETURN(const std::unique_ptr<GrpcServer> server,
                   GrpcServer::Start(options.server, &inference));
  program.Note(fmt::format("listening on {}", server->address()));
  for (bool serving = true; !StopSignals::WaitFor(kStatePoll);) {
    const absl::Status state = inference.state();
    if (serving && !state.ok())
      program.Error(state);  // clients and the health service hear it, too
    serving = state.ok();
  }
  program.Note("shutting down");
  server->Shutdown(kGrace);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Program program("coordinator");
  CoordinatorOptions options;
  FlagSet flags("coordinator", kUsage);
  AddFlags(&flags, &options);
  const std::optional<int> exit_code =
      program.ReadFlags(&flags, argc, argv, [&] { return Finish(flags, &options); });
  if (exit_code.has_value()) return *exit_code;
  program.SetVerbosity(options.fleet.quiet, options.fleet.verbose);
  const absl::Status status = Serve(program, options);
  return status.ok() ? kExitOk : program.Finish(status);  // a signal is how a daemon ends
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
