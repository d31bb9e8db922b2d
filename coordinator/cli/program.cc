// See program.h.
#include "coordinator/cli/program.h"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "common/util/version.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {
namespace {

// An error is one line, whatever is in it.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

Program::Program(std::string name) : name_(std::move(name)) {
  StopSignals::Install();
  // What matters of gRPC's messages comes back as a status.
  gpr_set_log_function([](gpr_log_func_args*) {});
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>(name_, std::make_shared<spdlog::sinks::stderr_sink_mt>()));
  spdlog::set_pattern("%n: %l: %v");
}

std::optional<int> Program::ReadFlags(FlagSet* flags, int argc, char** argv,
                                      const std::function<absl::Status()>& check) {
  absl::Status status = flags->Parse(argc, argv);
  if (flags->help() || flags->version()) {
    const std::string text =
        flags->help() ? flags->Help() : fmt::format("thermocline {}\n", kVersion);
    const bool written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
    return written ? kExitOk : kExitError;
  }
  if (status.ok()) status = check();
  if (status.ok()) return std::nullopt;
  fmt::print(stderr, "{}: error: {}\n", name_, OneLine(std::string(status.message())));
  return kExitUsage;
}

void Program::SetVerbosity(bool quiet, bool verbose) {
  quiet_ = quiet;
  verbose_ = verbose;
  spdlog::set_level(quiet ? spdlog::level::off
                          : (verbose ? spdlog::level::debug : spdlog::level::warn));
}

void Program::Note(const std::string& text) const {
  if (!quiet_) fmt::print(stderr, "{}: {}\n", name_, text);
}

void Program::Detail(const std::string& text) const {
  if (verbose_ && !quiet_) fmt::print(stderr, "{}: {}\n", name_, text);
}

int Program::Finish(const absl::Status& status) const {
  if (StopSignals::ExitCode() != 0 && (status.ok() || absl::IsCancelled(status))) {
    return StopSignals::ExitCode();
  }
  if (status.ok()) return kExitOk;
  fmt::print(stderr, "{}: error: {}\n", name_, OneLine(std::string(status.message())));
  return kExitError;
}

}  // namespace thermocline
