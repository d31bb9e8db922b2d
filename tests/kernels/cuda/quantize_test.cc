// Activations to int8 on every device: the CPU's bits.
#include <limits>

#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

class DeviceQuantize : public DeviceTest {
 protected:
  // x [n_tokens, x_stride], n of each row are quantized into rows of out_stride.
  void ExpectTheCpusBits(const std::vector<float>& x, int64_t n_tokens, int64_t n, int64_t x_stride,
                         int64_t out_stride) {
    const DeviceRows rows = AllocateRows(device_.get(), n_tokens, out_stride);
    device_->Check(ops_.quantize(stream_, device_->Upload(x), x_stride, n_tokens, n, rows));
    ExpectRows(device_.get(), rows, QuantizeOnCpu(x, n_tokens, n, x_stride), n_tokens, n);
  }
  void ExpectTheCpusBits(const std::vector<float>& x) {
    ExpectTheCpusBits(x, 1, std::ssize(x), std::ssize(x), std::ssize(x));
  }
};

TEST_P(DeviceQuantize, RowsOfEveryLengthHaveTheCpusBits) {
  for (const int64_t n : {32, 64, 96, 480, 512, 544, 4096, 11008}) {
    ExpectTheCpusBits(random_values(n, 1));
    ExpectTheCpusBits(random_values(5 * (n + 4), 2), 5, n, n + 4, n + 64);
  }
}

TEST_P(DeviceQuantize, EveryMagnitudeHasTheCpusBits) {
  for (int exponent = -149; exponent < 128; exponent += 3) {
    ExpectTheCpusBits(random_values(32 * 7, exponent + 200, std::ldexp(1.0f, exponent)));
  }
}

TEST_P(DeviceQuantize, ZerosAndLeastNumbersHaveTheCpusBits) {
  const float least = std::numeric_limits<float>::denorm_min();
  for (const float value : {0.0f, -0.0f, least, 10 * least, -180 * least}) {
    ExpectTheCpusBits(std::vector<float>(32, value));
  }
}

TEST_P(DeviceQuantize, TiesRoundToEven) {
  std::vector<float> x(32, 0.0f);
  x[0] = 127.0f;  // a scale of 1
  for (int i = 1; i < 32; ++i) x[i] = static_cast<float>(i) - 16.5f;
  ExpectTheCpusBits(x);
}

TEST_P(DeviceQuantize, NumbersThatAreNotFiniteShowAsOnTheCpu) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::nanf("")}) {
    for (int at = 0; at < 32; ++at) {
      std::vector<float> x = random_values(96, 3);
      x[32 + at] = bad;
      ExpectTheCpusBits(x);
    }
  }
}

TEST_P(DeviceQuantize, NoTokensAreNoWork) { ExpectTheCpusBits({}, 0, 64, 64, 64); }

INSTANTIATE_DEVICE_TESTS(DeviceQuantize);

}  // namespace
}  // namespace thermocline::kernels::testing
