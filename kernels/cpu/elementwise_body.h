// Addition and conversion of arrays in 16 lanes. Included after a backend of F32x16, with
// THERMOCLINE_LEVEL its name.
#include "kernels/cpu/map_body.h"
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {

void add(const float* a, const float* b, int64_t n, float* out) {
  map(a, b, n, out, [](F32x16 x, F32x16 y) { return x + y; });
}

void f32_to_f16(const float* x, int64_t n, uint16_t* out) {
  map(x, x, n, out, [](F32x16 value, F32x16) { return value; });
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
