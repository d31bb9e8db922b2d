// int8 rows in device memory, for tests of the ops that make them: what the CPU makes of the same
// values, and that both are the same.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {

struct CpuRows {  // [n_tokens, n] and [n_tokens, n / 32]
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

inline DeviceRows AllocateRows(TestDevice* device, int64_t n_tokens, int64_t stride) {
  return {device->Allocate<int8_t>(n_tokens * stride),
          device->Allocate<float>(n_tokens * stride / 32),
          device->Allocate<int32_t>(n_tokens * stride / 32), stride};
}

// n of each row of x [n_tokens, x_stride].
inline CpuRows QuantizeOnCpu(const std::vector<float>& x, int64_t n_tokens, int64_t n,
                             int64_t x_stride) {
  CpuRows rows = {std::vector<int8_t>(n_tokens * n), std::vector<float>(n_tokens * n / 32),
                  std::vector<int32_t>(n_tokens * n / 32)};
  for (int64_t t = 0; t < n_tokens; ++t) {
    const int64_t block = t * n / 32;
    kernels::ops(Isa::kReference)
        .quantize(x.data() + t * x_stride, n, rows.q.data() + t * n, rows.scale.data() + block,
                  rows.sum.data() + block);
  }
  return rows;
}

// The device's rows have these bits, and nothing is written behind n.
inline void ExpectRows(TestDevice* device, const DeviceRows& rows, const CpuRows& expected,
                       int64_t n_tokens, int64_t n) {
  const std::vector<int8_t> q = device->Download(rows.q, n_tokens * rows.stride);
  const std::vector<float> scale = device->Download(rows.scale, n_tokens * rows.stride / 32);
  const std::vector<int32_t> sum = device->Download(rows.sum, n_tokens * rows.stride / 32);
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t i = 0; i < rows.stride; ++i) {
      const int8_t wanted = i < n ? expected.q[t * n + i] : int8_t{-1};  // 0xff: untouched
      ASSERT_EQ(q[t * rows.stride + i], wanted) << "token " << t << ", value " << i << " of " << n;
    }
    for (int64_t b = 0; b < n / 32; ++b) {
      const int64_t at = t * rows.stride / 32 + b, from = t * n / 32 + b;
      ASSERT_TRUE(same_bits({scale[at]}, {expected.scale[from]})) << "token " << t << ", " << b;
      ASSERT_EQ(sum[at], expected.sum[from]) << "token " << t << ", block " << b;
    }
  }
}

}  // namespace thermocline::kernels::testing
