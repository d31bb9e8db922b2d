// The table of flags and how a command line and the environment are read into it. How the table is
// printed for --help is in flags_help.cc.
#include "common/util/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <utility>

#include "common/util/check.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// Spellings are compared in this form: "--ctx_size" and "--ctx-size" are one flag.
std::string Normalize(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

bool IsLong(const std::string& name) { return name.starts_with("--"); }

// "--ctx-size" -> "LLAMA_ARG_CTX_SIZE".
std::string EnvironmentName(const std::string& long_name) {
  std::string name = "LLAMA_ARG_";
  for (char c : long_name.substr(2)) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

template <typename T>
absl::Status ParseNumber(const std::string& text, const char* kind, T min, T max, T* value) {
  T parsed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, parsed);
  const bool is_number = error != std::errc::invalid_argument && stop == end;
  if (!is_number || parsed != parsed) {
    return absl::InvalidArgumentError(fmt::format("'{}' is not {}", text, kind));
  }
  if (error == std::errc::result_out_of_range || parsed < min || parsed > max) {
    const bool has_min = min != std::numeric_limits<T>::lowest();
    const bool has_max = max != std::numeric_limits<T>::max();
    std::string range = has_min && has_max ? fmt::format("from {} to {}", min, max)
                        : has_min          ? fmt::format("at least {}", min)
                        : has_max          ? fmt::format("at most {}", max)
                                           : "a number that fits 64 bits";
    return absl::InvalidArgumentError(
        fmt::format("{} is out of range: it must be {}", text, std::move(range)));
  }
  *value = parsed;
  return absl::OkStatus();
}

absl::Status ParseBool(const std::string& text, bool* value) {
  const bool yes = text == "1" || text == "true" || text == "on";
  if (!yes && text != "0" && text != "false" && text != "off") {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is none of 1, true, on, 0, false, off", text));
  }
  *value = yes;
  return absl::OkStatus();
}

// Insertions, deletions, replacements and swaps of neighbours that turn a into b.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

absl::Status Invalid(const std::string& name, const absl::Status& why) {
  return absl::InvalidArgumentError(
      fmt::format("{}: {}", name, std::string(why.message().data(), why.message().size())));
}

}  // namespace

FlagSet::FlagSet(std::string program, std::string usage)
    : program_(std::move(program)), usage_(std::move(usage)), groups_({"Options"}) {
  Bool({"-h", "--help"}, &help_, "print this text");
  Bool({"--version"}, &version_, "print the version");
}

void FlagSet::Group(std::string title) { groups_.push_back(std::move(title)); }

void FlagSet::Add(Flag flag) {
  THERMOCLINE_CHECK(!flag.names.empty());
  for (const std::string& name : flag.names) {
    THERMOCLINE_CHECK(name.size() > 1 && name[0] == '-' && Find(name) == nullptr);
  }
  flag.group = groups_.size() - 1;
  flags_.push_back(std::move(flag));
}

void FlagSet::String(std::vector<std::string> names, std::string unit, std::string* value,
                     std::string help) {
  auto parse = [value](const std::string& text) {
    *value = text;
    return absl::OkStatus();
  };
  Add({std::move(names), std::move(unit), std::move(help), *value, 0, parse, "", false});
}

void FlagSet::Int(std::vector<std::string> names, std::string unit, int64_t* value, int64_t min,
                  int64_t max, std::string help) {
  auto parse = [=](const std::string& text) {
    return ParseNumber<int64_t>(text, "a whole number", min, max, value);
  };
  Add({std::move(names), std::move(unit), std::move(help), fmt::format("{}", *value), 0, parse, "",
       false});
}

void FlagSet::Float(std::vector<std::string> names, std::string unit, double* value, double min,
                    double max, std::string help) {
  auto parse = [=](const std::string& text) {
    return ParseNumber<double>(text, "a number", min, max, value);
  };
  Add({std::move(names), std::move(unit), std::move(help), fmt::format("{:g}", *value), 0, parse,
       "", false});
}

void FlagSet::Bool(std::vector<std::string> names, bool* value, std::string help) {
  auto parse = [value](const std::string& text) { return ParseBool(text, value); };
  Add({std::move(names), "", std::move(help), "", 0, parse, "", false});
}

void FlagSet::BoolOff(std::vector<std::string> names, bool* value, std::string help) {
  auto parse = [value](const std::string& text) -> absl::Status {
    bool off = false;
    RETURN_IF_ERROR(ParseBool(text, &off));
    *value = !off;
    return absl::OkStatus();
  };
  Add({std::move(names), "", std::move(help), "", 0, parse, "", false});
}

void FlagSet::Choice(std::vector<std::string> names, std::vector<std::string> choices,
                     std::string* value, std::string help) {
  std::string unit = fmt::format("{}", fmt::join(choices, "|"));
  auto parse = [choices = std::move(choices), value](const std::string& text) -> absl::Status {
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not one of {}", text, fmt::join(choices, ", ")));
    }
    *value = text;
    return absl::OkStatus();
  };
  Add({std::move(names), std::move(unit), std::move(help), *value, 0, parse, "", false});
}

void FlagSet::Custom(std::vector<std::string> names, std::string unit,
                     std::function<absl::Status(const std::string&)> parse, std::string help) {
  Add({std::move(names), std::move(unit), std::move(help), "", 0, std::move(parse), "", false});
}

void FlagSet::Refused(std::vector<std::string> names, bool takes_value, std::string reason) {
  auto parse = [takes_value, reason](const std::string& text) -> absl::Status {
    bool on = true;
    if (!takes_value && ParseBool(text, &on).ok() && !on) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format("not honoured here: {}", reason));
  };
  Add({std::move(names), takes_value ? "VALUE" : "", "", "", 0, parse, reason, false});
}

FlagSet::Flag* FlagSet::Find(const std::string& name) {
  const std::string wanted = Normalize(name);
  for (Flag& flag : flags_) {
    for (const std::string& known : flag.names) {
      if (Normalize(known) == wanted) return &flag;
    }
  }
  return nullptr;
}

std::string FlagSet::Nearest(const std::string& name) const {
  const std::string wanted = Normalize(name);
  std::string nearest;
  size_t best = std::numeric_limits<size_t>::max();
  for (const Flag& flag : flags_) {
    if (!flag.refused.empty()) continue;
    for (const std::string& known : flag.names) {
      size_t distance = EditDistance(wanted, Normalize(known));
      // "--temperature" is meant by who knows "--temp": a cut or grown name is one edit away.
      const size_t shorter = std::min(wanted.size(), known.size());
      if (shorter >= 5 && wanted.compare(0, shorter, Normalize(known), 0, shorter) == 0) {
        distance = std::min<size_t>(distance, 1);
      }
      if (distance < best) {
        best = distance;
        nearest = known;
      }
    }
  }
  return nearest;
}

absl::Status FlagSet::ReadEnvironment() {
  for (Flag& flag : flags_) {
    if (&flag - flags_.data() < 2) continue;  // --help and --version are for command lines only
    for (const std::string& name : flag.names) {
      if (!IsLong(name)) continue;
      const std::string variable = EnvironmentName(Normalize(name));
      const char* text = std::getenv(variable.c_str());
      if (text == nullptr || *text == '\0') continue;
      if (absl::Status status = flag.parse(text); !status.ok()) {
        return Invalid(fmt::format("environment variable {} ({})", variable, name), status);
      }
      flag.is_set = true;
    }
  }
  return absl::OkStatus();
}

absl::Status FlagSet::ReadWord(const std::vector<std::string>& words, size_t* next) {
  const std::string word = words[(*next)++];
  if (word.size() < 2 || word[0] != '-') {
    return absl::InvalidArgumentError(fmt::format(
        "stray word '{}': every value follows its flag ({} --help lists them)", word, program_));
  }
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  Flag* flag = Find(name);
  if (flag == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("unknown flag {}: the nearest known one is {} ({} --help lists all)", name,
                    Nearest(name), program_));
  }
  std::string value = "true";
  if (equals != std::string::npos) {
    value = word.substr(equals + 1);
  } else if (!flag->refused.empty()) {
    // Its value does not matter, nor whether there is one.
  } else if (!flag->unit.empty()) {
    // A next word that is a flag is not a value; "-1" and "-not a flag" are.
    const bool has_next = *next < words.size();
    if (!has_next || Find(words[*next].substr(0, words[*next].find('='))) != nullptr) {
      const std::string hint =
          has_next ? fmt::format("; {} is a flag, write {}={} if it is meant as the value",
                                 words[*next], name, words[*next])
                   : "";
      return absl::InvalidArgumentError(
          fmt::format("{}: value missing ({} {}{})", name, name, flag->unit, hint));
    }
    value = words[(*next)++];
  }
  if (absl::Status status = flag->parse(value); !status.ok()) return Invalid(name, status);
  flag->is_set = flag->is_on_command_line = true;
  return absl::OkStatus();
}

absl::Status FlagSet::Parse(int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  // No other flag can take these as a value, so who asks for help gets it whatever else is wrong.
  for (const std::string& word : words) {
    if (word == "-h" || word == "--help") help_ = true;
    if (word == "--version") version_ = true;
  }
  if (help_ || version_) return absl::OkStatus();
  RETURN_IF_ERROR(ReadEnvironment());
  for (size_t next = 0; next < words.size();) RETURN_IF_ERROR(ReadWord(words, &next));
  return absl::OkStatus();
}

const FlagSet::Flag& FlagSet::Known(const std::string& name) const {
  const Flag* flag = const_cast<FlagSet*>(this)->Find(name);
  THERMOCLINE_CHECK(flag != nullptr);
  return *flag;
}

bool FlagSet::IsSet(const std::string& name) const { return Known(name).is_set; }

bool FlagSet::IsOnCommandLine(const std::string& name) const {
  return Known(name).is_on_command_line;
}

}  // namespace thermocline
