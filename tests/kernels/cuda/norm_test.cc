// RMS norm on every device: against f64, and its int8 form against the CPU's.
#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

constexpr float kEps = 1e-5f;

class DeviceNorm : public DeviceTest {
 protected:
  std::vector<float> Run(const std::vector<float>& x, const std::vector<float>& weight,
                         const DeviceRows& quantized = {}) {
    const int64_t n = std::ssize(weight), n_tokens = std::ssize(x) / n;
    float* out = device_->Allocate<float>(std::ssize(x));
    device_->Check(ops_.rms_norm(stream_, device_->Upload(x), device_->Upload(weight), n_tokens, n,
                                 kEps, out, quantized));
    return device_->Download(out, std::ssize(x));
  }
};

TEST_P(DeviceNorm, IsWithinItsBoundOfF64) {
  for (const int64_t n : {32, 64, 96, 992, 4064, 4096, 4128, 8192, 11008, 16384}) {
    const std::vector<float> x = random_values(n, 1, 7.0f), weight = random_values(n, 2);
    double sum = 0;
    for (const float value : x) sum += double{value} * value;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + double{kEps});
    std::vector<double> expected(n), tolerance(n);
    const double roundings = 2 * std::ceil(static_cast<double>(n) / 1024) + 10;
    for (int64_t i = 0; i < n; ++i) {
      expected[i] = x[i] * scale * weight[i];
      tolerance[i] = 1.01 * roundings * kRounding * std::abs(expected[i]);
    }
    EXPECT_TRUE(within(Run(x, weight), expected, tolerance)) << n;
  }
}

TEST_P(DeviceNorm, Int8IsTheCpusOfTheSameValues) {
  for (const int64_t n : {32, 96, 992, 4096, 4128, 8192}) {
    const DeviceRows rows = AllocateRows(device_.get(), 3, n + 32);
    const std::vector<float> out = Run(random_values(3 * n, 3), random_values(n, 4), rows);
    ExpectRows(device_.get(), rows, QuantizeOnCpu(out, 3, n, n), 3, n);
  }
}

TEST_P(DeviceNorm, Int8AloneIsTheSame) {
  const std::vector<float> x = random_values(2 * 320, 5), weight = random_values(320, 6);
  const CpuRows expected = QuantizeOnCpu(Run(x, weight), 2, 320, 320);
  const DeviceRows rows = AllocateRows(device_.get(), 2, 320);
  device_->Check(ops_.rms_norm(stream_, device_->Upload(x), device_->Upload(weight), 2, 320, kEps,
                               nullptr, rows));
  ExpectRows(device_.get(), rows, expected, 2, 320);
}

TEST_P(DeviceNorm, ATokensBitsDependOnItAlone) {
  const int64_t n = 1056;
  const std::vector<float> x = random_values(7 * n, 7), weight = random_values(n, 8);
  const std::vector<float> together = Run(x, weight);
  EXPECT_TRUE(same_bits(Run(x, weight), together));
  for (int64_t t = 0; t < 7; ++t) {
    const std::vector<float> alone(x.begin() + t * n, x.begin() + (t + 1) * n);
    EXPECT_TRUE(
        same_bits(Run(alone, weight), {together.begin() + t * n, together.begin() + (t + 1) * n}));
  }
}

TEST_P(DeviceNorm, ZerosStayZerosAndANanShows) {
  std::vector<float> x(64, 0.0f);
  EXPECT_TRUE(same_bits(Run(x, std::vector<float>(64, 1.0f)), x));
  x[63] = std::nanf("");
  for (const float value : Run(x, std::vector<float>(64, 1.0f))) EXPECT_TRUE(std::isnan(value));
}

INSTANTIATE_DEVICE_TESTS(DeviceNorm);

}  // namespace
}  // namespace thermocline::kernels::testing
