// The text that a model is calibrated on, as windows of tokens. Runs nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/tokenizer.h"

namespace thermocline {

using Window = std::vector<int32_t>;  // tokens

struct Calibration {
  std::string text_hash;        // SHA-256 of the text, hexadecimal
  std::vector<Window> windows;  // each with BOS in front, if the model has one put

  int64_t n_tokens() const;  // of all windows
};

struct CalibrationOptions {
  int64_t n_window = 1024;   // tokens of a window
  int64_t n_tokens = 65536;  // of all windows, at most; whole windows, at least one
  uint64_t seed = 1;         // of the windows' order
};

// Windows of equal length spread evenly over the text, without overlap, in random order: any run of
// them then stands for the whole text. InvalidArgument when the text, which errors call `name`,
// does not fill one.
absl::StatusOr<Calibration> CutCalibration(const std::string& text, const std::string& name,
                                           const Tokenizer& tokenizer,
                                           const CalibrationOptions& options);

// calibration.txt as it is shipped: share/thermocline beside the folder of this program, where the
// build and an installation have it. NotFound says where it was looked for.
absl::StatusOr<std::string> ShippedCalibrationPath();

}  // namespace thermocline
