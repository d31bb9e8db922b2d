// The loop of elementwise ops over F32x16, tail included. Included after a backend of F32x16.
#pragma once

#include <cstdint>

namespace thermocline::kernels {
namespace {

// out[i] = f(a[i], b[i]); `out` may be a or b. In is f32; Out is f32 or f16 (uint16_t).
template <typename F, typename Out>
inline void map(const float* a, const float* b, int64_t n, Out* out, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(f(load(a + i), load(b + i)), out + i);
  if (i < n) store_first(f(load_first(a + i, n - i), load_first(b + i, n - i)), out + i, n - i);
}

}  // namespace
}  // namespace thermocline::kernels
