// Which GPUs a fleet may use. Knows nothing of CUDA: gpu_worker is asked (--list-devices).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace thermocline {

struct GpuDevice {
  std::string name;         // "cuda:0", "emulated", "emulated:sleep=1000" (gpu_worker/device.h)
  std::string description;  // "cuda:0 (NVIDIA H100 80GB HBM3)"
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
  double gbps = 0;               // of reading device memory, 1e9 bytes a second
  int64_t graph_node_bytes = 0;  // as Device's
};

struct GpuDevices {
  std::vector<GpuDevice> devices;
  std::string reason;  // why there is none; empty where none was looked for
};

// choice: "auto" (all cards that there are, or none), "none", or names separated by commas, of
// which "emulated" may come more than once. NotFound for a name that is not there, with the names
// that are; InvalidArgument for what is no name of a device. worker_binary: gpu_worker, "": beside
// this program.
absl::StatusOr<GpuDevices> ChooseGpuDevices(const std::string& choice,
                                            const std::string& worker_binary);

// All that gpu_worker knows of, for --list-devices. reason: why there is no further card.
absl::StatusOr<GpuDevices> ListGpuDevices(const std::string& worker_binary);

// A program that lies beside this one.
absl::StatusOr<std::string> ProgramBeside(const std::string& name);

}  // namespace thermocline
