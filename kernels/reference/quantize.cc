// Activations to int8, 32 at a time: the reference. Contract: ops.h, QuantizedRows.
#include <bit>
#include <cmath>

#include "kernels/levels.h"

namespace thermocline::kernels::reference {

void quantize(const float* x, int64_t n, int8_t* q, float* scale, int32_t* sum) {
  for (int64_t b = 0; b < n / kBlockCols; ++b) {
    const float* values = x + b * kBlockCols;
    // The largest magnitude as the largest bit pattern: a NaN beats all, so it reaches the scale
    // and shows in the result.
    uint32_t largest = 0;
    for (int i = 0; i < kBlockCols; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu;
      if (magnitude > largest) largest = magnitude;
    }
    scale[b] = std::bit_cast<float>(largest) / 127.0f;
    sum[b] = 0;
    for (int i = 0; i < kBlockCols; ++i) {
      float steps = 0.0f;
      if (scale[b] != 0.0f) {  // also 0 where amax / 127 is too small for an f32
        steps = values[i] / scale[b];
        steps = steps < 127.0f ? steps : 127.0f;
        steps = steps > -127.0f ? steps : -127.0f;
      }
      q[b * kBlockCols + i] = static_cast<int8_t>(std::nearbyint(steps));
      sum[b] += q[b * kBlockCols + i];
    }
  }
}

}  // namespace thermocline::kernels::reference
