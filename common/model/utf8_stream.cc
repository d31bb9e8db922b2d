// Utf8Stream of tokenizer.h.
#include "common/model/tokenizer.h"
#include "common/util/utf8.h"

namespace thermocline {
namespace {

constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

std::string Utf8Stream::Push(std::string_view bytes) {
  pending_ += bytes;
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Unit unit = NextUtf8(rest);
    if (unit.kind == Utf8Unit::kCut) break;
    out += unit.kind == Utf8Unit::kCharacter ? rest.substr(0, unit.n_bytes) : kReplacementCharacter;
    rest.remove_prefix(unit.n_bytes);
  }
  pending_ = std::string(rest);
  return out;
}

std::string Utf8Stream::Flush() {
  // What is kept is the beginning of one character, so one U+FFFD stands for all of it.
  std::string out(pending_.empty() ? std::string_view() : kReplacementCharacter);
  pending_.clear();
  return out;
}

}  // namespace thermocline
