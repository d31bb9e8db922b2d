// Standard streams, messages and exit codes of all programs here.
#include "coordinator/cli/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/rpc/channel.h"
#include "common/util/version.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

// An error is one line, whatever is in it.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// fmt::print would throw when stderr is closed or full.
void ToStderr(const std::string& line) { std::fputs(fmt::format("{}\n", line).c_str(), stderr); }

// A file or socket opened later must not become a standard stream that was closed: what is written
// there fails instead.
void ReserveStandardStreams() {
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) std::abort();
  }
}

}  // namespace

Program::Program(std::string name) : name_(std::move(name)) {
  ReserveStandardStreams();
  StopSignals::Install();
  PrepareGrpc();
}

std::optional<int> Program::ReadFlags(FlagSet* flags, int argc, char** argv,
                                      const std::function<absl::Status()>& check) {
  absl::Status status = flags->Parse(argc, argv);
  if (flags->help() || flags->version()) {
    const std::string text =
        flags->help() ? flags->Help() : fmt::format("thermocline {}\n", kVersion);
    return Finish(Print(text));
  }
  if (status.ok()) status = check();
  if (status.ok()) return std::nullopt;
  Error(status);
  return kExitUsage;
}

void Program::SetVerbosity(bool quiet, bool verbose) {
  quiet_ = quiet;
  verbose_ = verbose;
}

absl::Status Program::Print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("can't write to standard output: {}", std::strerror(errno)));
}

void Program::Note(const std::string& text) const {
  if (!quiet_) ToStderr(fmt::format("{}: {}", name_, text));
}

void Program::Detail(const std::string& text) const {
  if (verbose_ && !quiet_) ToStderr(fmt::format("{}: {}", name_, text));
}

void Program::Error(const absl::Status& status) const {
  ToStderr(fmt::format("{}: error: {}", name_, OneLine(std::string(status.message()))));
}

int Program::Finish(const absl::Status& status) const {
  if (StopSignals::ExitCode() != 0 && (status.ok() || absl::IsCancelled(status))) {
    return StopSignals::ExitCode();
  }
  if (status.ok()) return kExitOk;
  Error(status);
  return kExitError;
}

}  // namespace thermocline
