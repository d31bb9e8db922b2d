// RMS norm, scalar.
#include <cmath>

#include "kernels/levels.h"
#include "kernels/reference/lanes16.h"

namespace thermocline::kernels::reference {

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const float mean = dot(x, x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] * scale) * weight[i];
}

}  // namespace thermocline::kernels::reference
