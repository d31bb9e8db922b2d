// What device_bench measures: every op of device_ops.h at a model's shapes. No timing is here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/bench/device_bench_inputs.h"

namespace thermocline::kernels {

struct DeviceCase {
  std::string op;    // its name in DeviceOps
  std::string what;  // "11008 x 4096", "context 512"
  std::string type;  // of weights or cache; "f32" where there are none
  int64_t n_tokens;
  // That the op has to read and write once, in the layout the device holds: weights, lists, inputs
  // and outputs, but no partial sums.
  int64_t n_bytes;
  // From one copy of what is read to the next; 0: so little that it stays in the caches.
  int64_t stride_bytes;
  double target;  // share of the plain read; 0: none
  std::function<LaunchError(const uint8_t* copy)> launch;
};

// The inputs have to outlive the cases.
std::vector<DeviceCase> MakeDeviceCases(const DeviceInputs& inputs);

}  // namespace thermocline::kernels
