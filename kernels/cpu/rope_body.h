// Rotary position embedding of interleaved pairs, 8 pairs at a time. Included after a backend of
// F32x16, with THERMOCLINE_LEVEL its name.
#include "kernels/levels.h"

namespace thermocline::kernels::THERMOCLINE_LEVEL {
namespace {

// x = x0 x1 x2 x3 ..., one cos and one sin a pair in the first 8 lanes. Even lanes become
// fma(x0, cos, -(x1 * sin)), odd ones fma(x0, sin, x1 * cos).
inline F32x16 rotate(F32x16 x, F32x16 cos, F32x16 sin) {
  const F32x16 cos_sin = interleave_low(cos, sin);
  return fma_subtract_add(even_twice(x), cos_sin, odd_twice(x) * swap_pairs(cos_sin));
}

}  // namespace

void rope_interleaved(float* x, int64_t n_rot, const float* cos, const float* sin) {
  int64_t i = 0;
  for (; i + 16 <= n_rot; i += 16) {
    const F32x16 c = load_first(cos + i / 2, 8);
    const F32x16 s = load_first(sin + i / 2, 8);
    store(rotate(load(x + i), c, s), x + i);
  }
  if (i < n_rot) {
    const int64_t left = n_rot - i;
    const F32x16 c = load_first(cos + i / 2, left / 2);
    const F32x16 s = load_first(sin + i / 2, left / 2);
    store_first(rotate(load_first(x + i, left), c, s), x + i, left);
  }
}

}  // namespace thermocline::kernels::THERMOCLINE_LEVEL
