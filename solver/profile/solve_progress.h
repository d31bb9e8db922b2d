// One bar over all of solve's stages, whose lengths are counted beforehand.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/util/progress.h"
#include "coordinator/cli/stop_signals.h"

namespace thermocline {

class SolveProgress {
 public:
  SolveProgress(double total_s, bool enabled)
      : total_s_(total_s), bar_("solve", stderr, enabled, Progress::Amount::kShare) {}

  // A piece of work that should take so long; the one before it is over. Pieces of one name are one
  // stage.
  void Begin(const std::string& stage, double expected_s) {
    EndPiece();
    piece_start_ = Clock::now();
    expected_s_ = expected_s;
    if (stages_s_.empty() || stages_s_.back().first != stage) stages_s_.emplace_back(stage, 0);
    bar_.Rename("solve: " + stage);
    Update(0);
  }
  // The share of the piece that is done. False when the user wants to stop.
  bool Update(double share) {
    constexpr double kUnits = 1e6;
    bar_.Update(static_cast<int64_t>((done_s_ + share * expected_s_) * kUnits),
                static_cast<int64_t>(total_s_ * kUnits));
    return !StopSignals::IsStopped();
  }
  void Clear() { bar_.Clear(); }
  // How long each stage took.
  std::vector<std::pair<std::string, double>> Finish() {
    EndPiece();
    bar_.Rename("solve");
    bar_.Finish();
    return stages_s_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  void EndPiece() {
    if (stages_s_.empty()) return;
    stages_s_.back().second += std::chrono::duration<double>(Clock::now() - piece_start_).count();
    piece_start_ = Clock::now();
    done_s_ += expected_s_;
    expected_s_ = 0;
  }

  const double total_s_;
  Progress bar_;
  double done_s_ = 0, expected_s_ = 0;  // of pieces that are over, and of the one at hand
  Clock::time_point piece_start_;
  std::vector<std::pair<std::string, double>> stages_s_;
};

}  // namespace thermocline
