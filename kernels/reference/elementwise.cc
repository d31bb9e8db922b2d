// Addition and conversion of arrays, scalar.
#include "common/gguf/half.h"
#include "kernels/levels.h"

namespace thermocline::kernels::reference {

void add(const float* a, const float* b, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

void f32_to_f16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = thermocline::f32_to_f16(x[i]);
}

}  // namespace thermocline::kernels::reference
