// Tokens to steps.
#include "solver/profile/run_windows.h"

#include <algorithm>
#include <vector>

#include "common/util/status_macros.h"

namespace thermocline {

absl::Status RunWindows(const Calibration& calibration, Stepper* fleet,
                        const std::function<bool(int64_t)>& go_on) {
  int64_t n_done = 0;
  std::vector<TokenInput> step;
  for (const std::vector<int32_t>& window : calibration.windows) {
    for (int64_t begin = 0; begin < std::ssize(window); begin += fleet->batch_size()) {
      const int64_t end = std::min<int64_t>(begin + fleet->batch_size(), std::ssize(window));
      step.clear();
      for (int64_t i = begin; i < end; ++i) {
        step.push_back({window[i], /*slot=*/0, static_cast<int32_t>(i), /*wants_logits=*/false});
      }
      RETURN_IF_ERROR(fleet->Run(step));
      n_done += end - begin;
      if (!go_on(n_done)) return absl::CancelledError("stopped by a signal");
    }
  }
  return absl::OkStatus();
}

}  // namespace thermocline
