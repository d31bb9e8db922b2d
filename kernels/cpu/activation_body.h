// The gated activations of the FFN in 16 lanes. Included after a backend of F32x16, with
// THERMOCLINE_LEVEL its name.
#include "kernels/cpu/exp_body.h"
#include "kernels/cpu/map_body.h"
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {

void relu_mul(const float* gate, const float* up, int64_t n, float* out) {
  map(gate, up, n, out, [](F32x16 g, F32x16 u) {
    return max(all_lanes(0.0f), g) * u;  // g second: NaN stays
  });
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  map(gate, up, n, out,
      [](F32x16 g, F32x16 u) { return g / (all_lanes(1.0f) + exp(negate(g))) * u; });
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
