// main() of a worker program: what cpu_worker and gpu_worker have in common.
#pragma once

#include "common/worker/rank.h"

namespace thermocline {

// Parses the command line and serves `rank` until the coordinator is gone or a signal comes.
// Returns the exit code: 2 for wrong use.
int WorkerMain(int argc, char** argv, const char* program, const char* usage, Rank* rank);

}  // namespace thermocline
