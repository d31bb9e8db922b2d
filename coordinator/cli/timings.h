// Times of a run and how llama.cpp's users know them printed.
#pragma once

#include <cstdint>
#include <string>

namespace thermocline {

struct Timings {
  double load_ms = 0;
  double prompt_ms = 0;
  int64_t prompt_tokens = 0;  // computed, not kept from before
  double predicted_ms = 0;
  int64_t predicted_tokens = 0;  // each the result of a step of one token: the first one is not

  // Four lines, without the last newline.
  std::string Text() const;
};

}  // namespace thermocline
