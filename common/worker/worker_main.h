// main() of a worker program: what cpu_worker and gpu_worker have in common.
#pragma once

#include <string>

#include "common/worker/rank.h"

namespace thermocline {

struct WorkerProgram {
  const char* name;
  const char* usage;
  Rank* rank;
  std::string (*list_devices)();  // what --list-devices prints; null: there is no such flag
};

// Parses the command line and serves the rank until the coordinator is gone or a signal comes.
// Returns the exit code: 2 for wrong use.
int WorkerMain(int argc, char** argv, const WorkerProgram& program);

}  // namespace thermocline
