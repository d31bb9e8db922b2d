// Paths and small helpers of tests that run the real programs.
#pragma once

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/testing/expected_model.h"
#include "tests/testing/subprocess.h"

namespace thermocline {

inline std::string ProgramPath(const std::string& name) {
  return std::string(THERMOCLINE_BIN_DIR) + "/" + name;
}

inline std::string ShippedModel() { return testing::FindModel("reluctant-13m-q8_0.gguf"); }

// Whether nothing of the child's is alive; ends are waited for a little.
inline bool NothingIsLeft(const testing::Child& child) {
  for (int i = 0; i < 250 && !child.Family().empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return child.Family().empty();
}

}  // namespace thermocline
