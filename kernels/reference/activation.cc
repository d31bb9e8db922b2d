// The gated activations of the FFN, scalar.
#include "kernels/levels.h"
#include "kernels/reference/exp.h"

namespace thermocline::kernels::reference {

void relu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float fired = gate[i] < 0.0f ? 0.0f : gate[i];  // keeps NaN
    out[i] = fired * up[i];
  }
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + exp(-gate[i])) * up[i];
}

}  // namespace thermocline::kernels::reference
