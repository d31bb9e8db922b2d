// Shapes that device_bench measures at, and the inputs on the device that are not weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu_worker/device.h"

namespace thermocline::kernels {

inline constexpr int64_t kBatch = 8;  // tokens of a step of several sessions

struct DeviceSizes {
  int64_t d_model, d_ff, n_vocab;
  int32_t n_heads, n_kv_heads, d_head;
  int64_t n_prompt;  // tokens of a prompt's step
  std::vector<int64_t> contexts;
  int64_t copies_bytes;  // for copies of weights and caches: two of the largest at least
};
DeviceSizes SizesOf7b();
DeviceSizes SmallSizes();  // for the emulated device

// Values do not matter to the time, except that a factor of 0 would be skipped.
inline constexpr int64_t kProgramSteps = 64;

struct DeviceInputs {
  DeviceSizes sizes;
  const DeviceOps* ops = nullptr;
  DeviceStream* stream = nullptr;
  float* x = nullptr;               // [max(n_prompt, 4), d_ff or more], all 0.5
  DeviceRows int8;                  // [n_prompt, d_ff]; stride d_model
  float* out = nullptr;             // room for what any op writes
  float* scores = nullptr;          // [d_ff], a tenth of them above 0.9
  RowList tenth;                    // of d_ff rows, those
  std::vector<int32_t> tenth_rows;  // the same on the host
  int32_t* places = nullptr;        // [d_ff], 0, 1, 2, ...
  uint8_t* workspace = nullptr;
  DeviceToken* tokens = nullptr;       // [n_prompt], position i of slot 0
  DeviceToken* last_tokens = nullptr;  // [contexts], each the last of its context
  DeviceKv prompt_kv;                  // n_ctx n_prompt, room for kF16
  DeviceProgram program;               // kProgramSteps sums of d_model values
  ProgramStep* steps = nullptr;        // its, on the device
  float* barrier = nullptr;            // [8]: 16 bytes for its barrier, then zeros
};

// Memory is the device's, which has to outlive the inputs.
absl::StatusOr<std::unique_ptr<DeviceInputs>> MakeDeviceInputs(Device* device,
                                                               const DeviceSizes& sizes);

}  // namespace thermocline::kernels
