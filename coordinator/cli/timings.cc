// The lines of timings, in llama.cpp's words.
#include "coordinator/cli/timings.h"

#include <fmt/format.h>

namespace thermocline {
namespace {

std::string Line(const char* what, double ms, int64_t n, const char* unit) {
  std::string line = fmt::format("{:>16} = {:10.2f} ms / {:5} {:<6}", what, ms, n, unit);
  if (n > 0 && ms > 0) {
    line += fmt::format(" ({:8.2f} ms per token, {:8.2f} tokens per second)", ms / n, n / ms * 1e3);
  }
  return line;
}

}  // namespace

std::string Timings::Text() const {
  return fmt::format("{:>16} = {:10.2f} ms\n{}\n{}\n{:>16} = {:10.2f} ms / {:5} tokens",
                     "load time", load_ms,
                     Line("prompt eval time", prompt_ms, prompt_tokens, "tokens"),
                     Line("eval time", predicted_ms, predicted_tokens, "runs"), "total time",
                     prompt_ms + predicted_ms, prompt_tokens + predicted_tokens);
}

}  // namespace thermocline
