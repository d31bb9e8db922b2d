// Rotary position embedding of interleaved pairs, scalar. Tables of cos and sin are the caller's.
#include <cmath>

#include "kernels/levels.h"

namespace thermocline::kernels::reference {

void rope_interleaved(float* x, int64_t n_rot, const float* cos, const float* sin) {
  for (int64_t i = 0; i < n_rot / 2; ++i) {
    const float x0 = x[2 * i];
    const float x1 = x[2 * i + 1];
    x[2 * i] = std::fma(x0, cos[i], -(x1 * sin[i]));
    x[2 * i + 1] = std::fma(x0, sin[i], x1 * cos[i]);
  }
}

}  // namespace thermocline::kernels::reference
