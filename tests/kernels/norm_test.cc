// RMS norm: every level against the reference, the levels against f64.
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

class NormTest : public testing::TestWithParam<Isa> {
 protected:
  std::vector<float> rms_norm(Isa isa, const std::vector<float>& x,
                              const std::vector<float>& weight, float eps) {
    AtPageEnd<float> x_at(x), weight_at(weight), out(std::ssize(x));
    ops(isa).rms_norm(x_at.data(), weight_at.data(), std::ssize(x), eps, out.data());
    return out.values();
  }
};

TEST_P(NormTest, EveryLengthEqualsTheReference) {
  for (const int64_t n : lengths()) {
    const std::vector<float> x = random_values(n, 1), weight = random_values(n, 2);
    EXPECT_TRUE(same_bits(rms_norm(GetParam(), x, weight, 1e-5f),
                          rms_norm(Isa::kReference, x, weight, 1e-5f)))
        << n;
  }
}

TEST_P(NormTest, IsCloseToF64) {
  for (const int64_t n : lengths()) {
    const std::vector<float> x = random_values(n, 3, 7.0f), weight = random_values(n, 4);
    double sum = 0;
    for (const float value : x) sum += double{value} * value;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + double{1e-5f});
    std::vector<double> expected(n), tolerance(n);
    // All terms of the sum are positive: at most n / 16 + 1 roundings in a lane, 4 in the tree,
    // then the mean and eps, halved by the square root; root, inverse and two products.
    const double roundings = (static_cast<double>(n) / 16 + 1 + 4 + 2) / 2 + 4;
    for (int64_t i = 0; i < n; ++i) {
      expected[i] = x[i] * scale * weight[i];
      tolerance[i] = 1.01 * roundings * kRounding * std::abs(expected[i]);
    }
    EXPECT_TRUE(within(rms_norm(GetParam(), x, weight, 1e-5f), expected, tolerance)) << n;
  }
}

TEST_P(NormTest, ZerosStayZeros) {
  const std::vector<float> zeros(37, 0.0f), weight = random_values(37, 5);
  EXPECT_THAT(rms_norm(GetParam(), zeros, weight, 1e-6f), testing::Each(0.0f));
}

TEST_P(NormTest, WorksInPlace) {
  const std::vector<float> x = random_values(50, 6), weight = random_values(50, 7);
  AtPageEnd<float> x_at(x), weight_at(weight);
  ops(GetParam()).rms_norm(x_at.data(), weight_at.data(), 50, 1e-5f, x_at.data());
  EXPECT_TRUE(same_bits(x_at.values(), rms_norm(GetParam(), x, weight, 1e-5f)));
}

INSTANTIATE_TEST_SUITE_P(Levels, NormTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
