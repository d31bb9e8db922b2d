// cpu_worker: a rank on the CPUs of a NUMA node, as a program.
#include "common/worker/worker_main.h"
#include "cpu_worker/worker.h"

int main(int argc, char** argv) {
  thermocline::CpuWorker worker;
  return thermocline::WorkerMain(
      argc, argv,
      {.name = "cpu_worker",
       .usage =
           "Computes one shard of a model for a coordinator. main, bench, perplexity and "
           "coordinator start\n"
           "workers on this host by themselves; on another host: cpu_worker --listen HOST:PORT",
       .rank = &worker,
       .list_devices = nullptr});
}
