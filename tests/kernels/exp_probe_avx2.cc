// exp of the AVX2+FMA level over an array.
#include "kernels/cpu/f32x16_avx2.h"

// After the backend in whose terms it is written.
#include "kernels/cpu/exp_body.h"
#include "tests/kernels/exp_probe.h"

namespace thermocline::kernels {

void exp_probe_avx2(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) store(exp(load(x + i)), out + i);
}

}  // namespace thermocline::kernels
