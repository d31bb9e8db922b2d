// The one exp: the reference against f64 over the whole range, the SIMD forms against the
// reference.
#include "kernels/reference/exp.h"

#include <bit>
#include <cmath>
#include <limits>

#include "tests/kernels/exp_probe.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Distance in units in the last place that an f32 of the exact value's size has.
double error_ulp(float actual, double exact) {
  const int exponent = std::max(std::ilogb(exact), -126);
  return std::abs(actual - exact) / std::ldexp(1.0, exponent - 23);
}

TEST(ExpTest, ErrsByAtMostAHundredthMoreThanOneUlp) {
  double worst = 0;
  float worst_x = 0;
  const auto check = [&](float x) {
    const double error = error_ulp(reference::exp(x), std::exp(double{x}));
    if (!(error <= worst)) {
      worst = error;
      worst_x = x;
    }
  };
  for (double x = -104.5; x < 88.7228; x += 0.0000313) check(static_cast<float>(x));
  // Small magnitudes, both signs, by bit patterns.
  for (uint32_t bits = 0; bits < std::bit_cast<uint32_t>(1.0f); bits += 1009) {
    check(std::bit_cast<float>(bits));
    check(-std::bit_cast<float>(bits));
  }
  EXPECT_LE(worst, 1.01) << "at " << worst_x;
}

TEST(ExpTest, SpecialValuesAreExact) {
  EXPECT_EQ(reference::exp(0.0f), 1.0f);
  EXPECT_EQ(reference::exp(-0.0f), 1.0f);
  EXPECT_EQ(reference::exp(-kInfinity), 0.0f);
  EXPECT_EQ(reference::exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(reference::exp(std::nanf(""))));
}

TEST(ExpTest, EndsOfTheRangeAreWhereF32Ends) {
  EXPECT_LT(reference::exp(88.72283f), kInfinity);
  EXPECT_EQ(reference::exp(88.72284f), kInfinity);
  EXPECT_EQ(reference::exp(3e38f), kInfinity);
  EXPECT_EQ(reference::exp(-103.97f), 0x1p-149f);
  EXPECT_EQ(reference::exp(-103.98f), 0.0f);
  EXPECT_EQ(reference::exp(-3e38f), 0.0f);
}

using Probe = void (*)(const float* x, int64_t n, float* out);

// Every 1021st pattern of an f32: all exponents, both signs, infinities and NaNs among them.
void expect_reference_bits(Probe probe) {
  constexpr int64_t kPart = 1 << 12;
  std::vector<float> x(kPart), actual(kPart), expected(kPart);
  for (uint64_t bits = 0; bits < 0x100000000;) {
    for (int64_t i = 0; i < kPart; ++i, bits += 1021) {
      x[i] = std::bit_cast<float>(static_cast<uint32_t>(bits));
      expected[i] = reference::exp(x[i]);
    }
    probe(x.data(), kPart, actual.data());
    ASSERT_TRUE(same_bits(actual, expected)) << "from pattern " << bits;
  }
  // And densely where results are neither 0 nor infinite.
  for (double start = -105; start < 89.5;) {
    for (int64_t i = 0; i < kPart; ++i, start += 0.0000617) {
      x[i] = static_cast<float>(start);
      expected[i] = reference::exp(x[i]);
    }
    probe(x.data(), kPart, actual.data());
    ASSERT_TRUE(same_bits(actual, expected)) << "up to " << start;
  }
}

TEST(ExpTest, Avx2EqualsTheReference) {
  if (!isa_supported(Isa::kAvx2)) GTEST_SKIP() << "this machine has no AVX2";
  expect_reference_bits(exp_probe_avx2);
}

TEST(ExpTest, Avx512EqualsTheReference) {
  if (!isa_supported(Isa::kAvx512)) GTEST_SKIP() << "this machine has no AVX-512";
  expect_reference_bits(exp_probe_avx512);
}

}  // namespace
}  // namespace thermocline::kernels
