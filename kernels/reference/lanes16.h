// The 16 virtual lanes in which dots, norms and softmax sums run (ops.h, "Numbers"), as an array.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace thermocline::kernels::reference {

struct Lanes16 {
  float lane[16];

  static Lanes16 filled(float value) {
    Lanes16 lanes;
    for (float& lane : lanes.lane) lane = value;
    return lanes;
  }

  // Combines lanes 8 apart, then 4, 2, 1.
  template <typename Combine>
  float reduce(Combine combine) const {
    Lanes16 rest = *this;
    for (int distance = 8; distance > 0; distance /= 2) {
      for (int j = 0; j < distance; ++j) {
        rest.lane[j] = combine(rest.lane[j], rest.lane[j + distance]);
      }
    }
    return rest.lane[0];
  }
  float sum() const {
    return reduce([](float a, float b) { return a + b; });
  }
};

// a [n] . b [n], f32.
inline float dot(const float* a, const float* b, int64_t n) {
  Lanes16 lanes = Lanes16::filled(0.0f);
  for (int64_t i = 0; i < n; ++i) {
    lanes.lane[i % 16] = std::fma(a[i], b[i], lanes.lane[i % 16]);
  }
  return lanes.sum();
}

// The larger; of +0 and -0, or where one is NaN, the second (as x86's MAXPS, so that levels agree).
inline float larger(float a, float b) { return a > b ? a : b; }

// The largest of x [n], minus infinity when there is none; a NaN is passed over.
inline float maximum(const float* x, int64_t n) {
  Lanes16 lanes = Lanes16::filled(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < n; ++i) lanes.lane[i % 16] = larger(x[i], lanes.lane[i % 16]);
  return lanes.reduce(larger);
}

}  // namespace thermocline::kernels::reference
