// RMS norm in 16 lanes. Included after a backend of F32x16, with THERMOCLINE_LEVEL its name.
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

float sum_of_squares(const float* x, int64_t n) {
  F32x16 sum = all_lanes(0.0f);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sum = fma(load(x + i), load(x + i), sum);
  if (i < n) {  // lanes without an element keep their value, the sign of a zero too
    const F32x16 last = load_first(x + i, n - i);
    sum = select_first(fma(last, last, sum), sum, n - i);
  }
  return add_lanes(sum);
}

}  // namespace

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const float mean = sum_of_squares(x, n) / static_cast<float>(n);
  const F32x16 scale = all_lanes(inverse_sqrt(mean + eps));
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store((load(x + i) * scale) * load(weight + i), out + i);
  if (i < n) {
    const int64_t left = n - i;
    store_first((load_first(x + i, left) * scale) * load_first(weight + i, left), out + i, left);
  }
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
