// The text of --help: flags by group, aligned, at most 100 columns. Reading flags is in flags.cc.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "common/util/flags.h"

namespace thermocline {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kHelpColumn = 36;  // where help begins; longer names get a line of their own

// Appends the words of `text` to *out, whose current line is `column` wide; lines that follow begin
// at `indent`.
void AppendWrapped(std::string_view text, size_t column, size_t indent, std::string* out) {
  bool first = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    if (!first && column + 1 + word.size() > kColumns) {
      *out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      *out += ' ';
      ++column;
    }
    *out += word;
    column += word.size();
    first = false;
  }
  *out += '\n';
}

void AppendFlag(const std::string& names, const std::string& help, std::string* out) {
  std::string line = "  " + names;
  if (line.size() + 2 > kHelpColumn) {
    *out += line + "\n";
    line.clear();
  }
  *out += line + std::string(kHelpColumn - line.size(), ' ');
  AppendWrapped(help, kHelpColumn, kHelpColumn, out);
}

}  // namespace

std::string FlagSet::Help() const {
  std::string out = usage_ + "\n";
  std::vector<std::string> refused;
  for (size_t group = 0; group < groups_.size(); ++group) {
    bool titled = false;
    for (const Flag& flag : flags_) {
      if (flag.group != group) continue;
      if (!flag.refused.empty()) {
        refused.push_back(flag.names.back());
        continue;
      }
      if (!titled) out += "\n" + groups_[group] + ":\n";
      titled = true;
      std::string names = fmt::format("{}", fmt::join(flag.names, ", "));
      if (!flag.unit.empty()) names += " " + flag.unit;
      const std::string default_text =
          flag.default_text.empty() ? "" : fmt::format(" (default: {})", flag.default_text);
      AppendFlag(names, flag.help + default_text, &out);
    }
  }
  if (!refused.empty()) {
    out += "\nKnown from other engines, refused here with the reason:\n  ";
    AppendWrapped(fmt::format("{}", fmt::join(refused, " ")), 2, 2, &out);
  }
  out += "\n";
  AppendWrapped(
      "Every flag can be set by an environment variable, LLAMA_ARG_ and its long name "
      "(LLAMA_ARG_CTX_SIZE for --ctx-size); a flag on the command line wins.",
      0, 0, &out);
  return out;
}

}  // namespace thermocline
