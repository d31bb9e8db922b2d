// A worker's command line, its server, its end with its coordinator.
#include "common/worker/worker_main.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "common/rpc/channel.h"
#include "common/util/flags.h"
#include "common/util/version.h"
#include "common/worker/worker_service.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

struct Options {
  const char* program;
  std::string listen;
  int64_t control_fd = -1, lifeline_fd = -1, segment_fd = -1;
  TlsFiles tls;
};

int Fail(const Options& options, const std::string& message) {
  fmt::print(stderr, "{}: error: {}\n", options.program, message);
  return 1;
}

// A spawned worker ends with why: to whoever reads its errors, and over the lifeline to the
// coordinator, which tells its clients.
[[noreturn]] void EndWith(const Options& options, const std::string& message) {
  const int code = Fail(options, message);
  send(static_cast<int>(options.lifeline_fd), message.data(), message.size(),
       MSG_NOSIGNAL | MSG_DONTWAIT);
  _exit(code);
}

// The signals that end a worker of its own (--listen), as a descriptor. One that was spawned takes
// none: a terminal or systemd sends them to the coordinator as well, which ends it by the lifeline.
int TakeSignals(bool has_lifeline) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    if (has_lifeline) {
      signal(number, SIG_IGN);
    } else {
      sigaddset(&signals, number);
    }
  }
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signalfd(-1, &signals, SFD_CLOEXEC);
}

// Until a signal comes or the coordinator is gone. A stray byte on the lifeline is nothing.
void AwaitEnd(int signal_fd, int lifeline_fd) {
  for (;;) {
    pollfd fds[] = {{signal_fd, POLLIN, 0}, {lifeline_fd, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents != 0) return;
    char byte;
    if (fds[1].revents != 0 && read(lifeline_fd, &byte, 1) <= 0) return;
  }
}

int Run(const Options& options, Rank* rank) {
  const bool is_spawned = options.control_fd >= 0;
  if (is_spawned == !options.listen.empty()) {
    return Fail(options,
                "say --listen ADDRESS (main, bench and coordinator start their own workers)");
  }
  const int signal_fd = TakeSignals(options.lifeline_fd >= 0);
  WorkerService service(rank, static_cast<int>(options.segment_fd),
                        [&options, is_spawned](const absl::Status& end) {
                          if (end.ok()) return;
                          // The coordinator sees at once that a process it spawned has ended; what
                          // others did wrong (Unavailable) is for it to tell.
                          if (is_spawned && absl::IsUnavailable(end)) return;
                          if (is_spawned) EndWith(options, std::string(end.message()));
                          Fail(options, std::string(end.message()));
                        });
  grpc::ServerBuilder builder;
  ConfigureServer(&builder, options.listen);
  builder.RegisterService(&service);
  ExchangeServer exchange_server(&service, &builder);
  int port = 0;
  if (!is_spawned) {
    absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> credentials =
        ServerCredentialsFor(options.listen, options.tls);
    if (!credentials.ok()) return Fail(options, std::string(credentials.status().message()));
    builder.AddListeningPort(options.listen, *credentials, &port);
  }
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || (!is_spawned && port == 0)) {
    return Fail(options, fmt::format("can't listen on {}", options.listen));
  }
  std::thread([&] {
    while (exchange_server.ServeCall([&](FrameStream& s) { return service.ServeStream(s); })) {
    }
  }).detach();  // lives as long as the process
  if (is_spawned) {
    ServeFd(server.get(), static_cast<int>(options.control_fd));
  } else {
    fmt::print(stderr, "{}: listening on {} (port {})\n", options.program, options.listen, port);
  }
  AwaitEnd(signal_fd, static_cast<int>(options.lifeline_fd));
  // Steps may be waiting for ranks that are gone, too; nothing of ours outlives the process.
  _exit(0);
}

}  // namespace

int WorkerMain(int argc, char** argv, const WorkerProgram& program) {
  PrepareGrpc();
  Options options;
  options.program = program.name;
  bool lists_devices = false;
  FlagSet flags(program.name, program.usage);
  flags.Group("address");
  flags.String({"--listen"}, "ADDR", &options.listen, "HOST:PORT or unix:PATH to serve on");
  flags.String({"--tls-ca"}, "FILE", &options.tls.ca,
               "certificates that clients must be signed by");
  flags.String({"--tls-cert"}, "FILE", &options.tls.cert, "this worker's certificate");
  flags.String({"--tls-key"}, "FILE", &options.tls.key, "this worker's private key");
  if (program.list_devices != nullptr) {
    flags.Bool({"--list-devices"}, &lists_devices, "print what could be computed on, as JSON");
  }
  flags.Group("set by the coordinator that spawns a worker");
  flags.Int({"--control-fd"}, "N", &options.control_fd, -1, 1 << 20, "inherited gRPC socket");
  flags.Int({"--lifeline-fd"}, "N", &options.lifeline_fd, -1, 1 << 20,
            "inherited socket; the worker ends when it closes");
  flags.Int({"--segment-fd"}, "N", &options.segment_fd, -1, 1 << 20,
            "inherited shared-memory segment");
  const absl::Status status = flags.Parse(argc, argv);
  if (!status.ok()) {
    Fail(options, std::string(status.message()));
    return 2;
  }
  if (flags.help() || flags.version()) {
    fmt::print("{}", flags.help() ? flags.Help() : fmt::format("{} {}\n", program.name, kVersion));
    return 0;
  }
  if (lists_devices) {
    fmt::print("{}\n", program.list_devices());
    return 0;
  }
  return Run(options, program.rank);
}

}  // namespace thermocline
