// What the two forms of a selection share: a row's score, and what it must be above.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace thermocline::kernels::SIMT_DEVICE {

__device__ __forceinline__ float threshold_of(const DeviceSelection& s, int64_t token) {
  const int number = s.classes == nullptr ? 0 : s.classes[token];
  return number == 0 ? s.thresholds[0] : number == 1 ? s.thresholds[1] : s.thresholds[2];
}

__device__ __forceinline__ float score_of(const DeviceSelection& s, int64_t token, int64_t row) {
  float score = s.scores[token * s.stride + row];
  if (s.bias != nullptr) score = __fadd_rn(score, s.bias[row]);
  return s.is_magnitude ? fabsf(score) : score;
}

}  // namespace thermocline::kernels::SIMT_DEVICE
