// A fleet's last steps as a file that Perfetto (ui.perfetto.dev) and Chrome's about:tracing show:
// the Trace Event Format's complete events, a process for each rank and one for the coordinator.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/util/trace.h"

namespace thermocline {

struct RankTrace {
  std::string name;                 // "4 threads, avx512"
  std::vector<TraceSpan> spans;     // as TraceRecorder::Read has them
  bool is_on_another_host = false;  // its clock is another one: see WriteTrace
};

// An error where `path` could not be written in the end, before there is anything to write.
absl::Status CheckTracePath(const std::string& path);

// Whole or not at all. Times are microseconds since the first step's begin. Each step of a rank on
// another host is shifted so that it begins when the coordinator posts it; how long it took to get
// there is not known. Such steps that the coordinator has forgotten are left out.
absl::Status WriteTrace(const std::string& path, const std::vector<TraceSpan>& coordinator,
                        std::vector<RankTrace> ranks);

}  // namespace thermocline
