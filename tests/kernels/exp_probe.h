// exp of the SIMD levels over arrays, for exp_test.cc; each is compiled with its level's flags.
#pragma once

#include <cstdint>

namespace thermocline::kernels {

// x [n] -> out [n], n a multiple of 16.
void exp_probe_avx2(const float* x, int64_t n, float* out);
void exp_probe_avx512(const float* x, int64_t n, float* out);

}  // namespace thermocline::kernels
