// Command lines as one table: every flag with its spellings, its kind, its help and where the value
// goes. Spellings are llama.cpp's, so neither absl flags nor getopt fit.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace thermocline {

class FlagSet {
 public:
  // `usage` is what --help prints first, `program` stands in errors.
  FlagSet(std::string program, std::string usage);

  void Group(std::string title);  // flags added after it are listed under it in --help

  // names: "-m", "--model"; all spellings are equal, underscores count as dashes ("--ctx_size").
  // `value` keeps what it held as the default, which --help prints. `unit` is the word for the
  // value in help: "N", "FILE", "tokens".
  void String(std::vector<std::string> names, std::string unit, std::string* value,
              std::string help);
  void Int(std::vector<std::string> names, std::string unit, int64_t* value, int64_t min,
           int64_t max, std::string help);
  void Float(std::vector<std::string> names, std::string unit, double* value, double min,
             double max, std::string help);
  void Bool(std::vector<std::string> names, bool* value, std::string help);     // bare: sets true
  void BoolOff(std::vector<std::string> names, bool* value, std::string help);  // bare: sets false
  void Choice(std::vector<std::string> names, std::vector<std::string> choices, std::string* value,
              std::string help);
  // Anything else: `parse` gets the text and returns an error that need not name the flag.
  void Custom(std::vector<std::string> names, std::string unit,
              std::function<absl::Status(const std::string&)> parse, std::string help);
  // Known to users of other engines, not honoured here: using it is an error that says why.
  void Refused(std::vector<std::string> names, bool takes_value, std::string reason);

  // Parses argv[1..]. `--flag=value` and `--flag value` are the same; a later flag wins. First
  // every flag's environment variable LLAMA_ARG_<LONG_NAME> is read (dashes become underscores; for
  // bare flags 1/true/on and 0/false/off; an empty variable is as good as none). InvalidArgument
  // names the flag: unknown (with the nearest known one), value missing, not a number, out of
  // range, not a choice, refused, or a stray word.
  absl::Status Parse(int argc, const char* const* argv);
  bool help() const { return help_; }        // --help or -h was given: print Help() and exit 0
  bool version() const { return version_; }  // --version was given
  std::string Help() const;
  bool IsSet(const std::string& name) const;  // given on the command line or by the environment
  bool IsOnCommandLine(const std::string& name) const;

 private:
  struct Flag {
    std::vector<std::string> names;
    std::string unit;  // "" for bare flags
    std::string help;
    std::string default_text;
    size_t group = 0;
    std::function<absl::Status(const std::string&)> parse;
    std::string refused;  // reason, if refused
    bool is_set = false;
    bool is_on_command_line = false;
  };
  absl::Status ReadEnvironment();
  absl::Status ReadWord(const std::vector<std::string>& words, size_t* next);
  Flag* Find(const std::string& name);
  const Flag& Known(const std::string& name) const;  // a name that is none is our own bug
  std::string Nearest(const std::string& name) const;
  void Add(Flag flag);

  std::string program_, usage_;
  std::vector<std::string> groups_;
  std::vector<Flag> flags_;
  bool help_ = false, version_ = false;
};

}  // namespace thermocline
