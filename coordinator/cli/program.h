// What every program here does before and after its work: reads its command line, sets up messages,
// reports errors in one line, ends with the right exit code.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/util/flags.h"

namespace thermocline {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;

class Program {
 public:
  // `name` stands in front of messages. Installs signal handlers, silences gRPC's own messages.
  explicit Program(std::string name);

  // The exit code, when --help or --version was given or the command line is wrong (`check` tells
  // about what the table of flags can't); else nothing.
  std::optional<int> ReadFlags(FlagSet* flags, int argc, char** argv,
                               const std::function<absl::Status()>& check);
  void SetVerbosity(bool quiet, bool verbose);

  bool quiet() const { return quiet_; }
  bool verbose() const { return verbose_; }
  static absl::Status Print(const std::string& text);  // results, to stdout
  void Note(const std::string& text) const;            // to stderr, unless quiet
  void Detail(const std::string& text) const;          // to stderr, if verbose
  void Error(const absl::Status& status) const;        // one line to stderr, also when quiet
  // Exit code for how the work ended: a signal's, if one came, else that of `status`, whose message
  // goes to stderr in one line.
  int Finish(const absl::Status& status) const;

 private:
  std::string name_;
  bool quiet_ = false, verbose_ = false;
};

}  // namespace thermocline
