// gpu_worker: a rank on a GPU, or on the emulated one, as a program.
#include "common/worker/worker_main.h"
#include "gpu_worker/device_list.h"
#include "gpu_worker/worker.h"

int main(int argc, char** argv) {
  thermocline::GpuWorker worker;
  return thermocline::WorkerMain(
      argc, argv,
      {.name = "gpu_worker",
       .usage = "Computes one shard of a model on a GPU for a coordinator. main, bench, perplexity "
                "and\n"
                "coordinator start workers on this host by themselves; on another host: gpu_worker "
                "--listen\nHOST:PORT",
       .rank = &worker,
       .list_devices = thermocline::ListDevices});
}
