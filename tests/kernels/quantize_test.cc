// What int8 activations must be, and that every level gives the reference's bits.
#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

struct Result {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
};

class QuantizeTest : public testing::TestWithParam<Isa> {
 protected:
  static Result Quantize(Isa isa, const std::vector<float>& x) {
    const int64_t n = std::ssize(x);
    AtPageEnd<float> in(x), scale(n / 32);
    AtPageEnd<int8_t> q(n);
    AtPageEnd<int32_t> sum(n / 32);
    ops(isa).quantize(in.data(), n, q.data(), scale.data(), sum.data());
    return {q.values(), scale.values(), sum.values()};
  }
  Result Quantize(const std::vector<float>& x) { return Quantize(GetParam(), x); }
  void ExpectAsReference(const std::vector<float>& x) {
    const Result actual = Quantize(x), expected = Quantize(Isa::kReference, x);
    EXPECT_EQ(actual.q, expected.q);
    EXPECT_TRUE(same_bits(actual.scale, expected.scale));
    EXPECT_EQ(actual.sum, expected.sum);
  }
};

TEST_P(QuantizeTest, BlockOfZerosQuantizesToZero) {
  for (const float zero : {0.0f, -0.0f}) {
    const Result r = Quantize(std::vector<float>(32, zero));
    EXPECT_EQ(r.q, std::vector<int8_t>(32, 0));
    EXPECT_EQ(r.scale[0], 0.0f);
    EXPECT_EQ(r.sum[0], 0);
  }
}

TEST_P(QuantizeTest, LargestMagnitudeBecomes127OfItsSign) {
  std::vector<float> x(64, 1.0f);
  x[7] = -254.0f;
  x[40] = 25.4f;
  const Result r = Quantize(x);
  EXPECT_EQ(r.q[7], -127);
  EXPECT_EQ(r.q[40], 127);
  EXPECT_EQ(r.scale[0], 254.0f / 127.0f);
  EXPECT_EQ(r.scale[1], 25.4f / 127.0f);
}

TEST_P(QuantizeTest, TiesRoundToEven) {
  std::vector<float> x(32, 0.0f);
  x[0] = 127.0f;  // a scale of 1
  for (int i = 1; i < 32; ++i) x[i] = static_cast<float>(i) - 16.5f;
  const Result r = Quantize(x);
  for (int i = 1; i < 32; ++i) {
    EXPECT_EQ(r.q[i] % 2, 0) << x[i];
    EXPECT_EQ(std::abs(r.q[i] - x[i]), 0.5f) << x[i];
  }
}

TEST_P(QuantizeTest, SumIsThatOfTheIntegers) {
  const Result r = Quantize(random_values(32 * 9, 1));
  for (int b = 0; b < 9; ++b) {
    int32_t sum = 0;
    for (int i = 0; i < 32; ++i) sum += r.q[b * 32 + i];
    EXPECT_EQ(r.sum[b], sum);
  }
}

TEST_P(QuantizeTest, ErrorIsAtMostHalfAStep) {
  const std::vector<float> x = random_values(32 * 50, 2);
  const Result r = Quantize(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double step = r.scale[i / 32];
    // The quotient, at most 127, is rounded to f32 before it is rounded to an integer.
    EXPECT_LE(std::abs(x[i] - r.q[i] * step), (0.5 + 127 * kRounding) * step) << i;
  }
}

TEST_P(QuantizeTest, ScaleTooSmallForAnF32GivesZeros) {
  const float least = std::numeric_limits<float>::denorm_min();
  const Result r = Quantize(std::vector<float>(32, 10 * least));  // 10/127 of the least rounds to 0
  EXPECT_EQ(r.q, std::vector<int8_t>(32, 0));
  EXPECT_EQ(r.scale[0], 0.0f);
}

TEST_P(QuantizeTest, SubnormalScalesClampTo127) {
  const float least = std::numeric_limits<float>::denorm_min();
  std::vector<float> x(32, -180 * least);  // 180/127 rounds to a scale of 1: -180 steps
  const Result r = Quantize(x);
  EXPECT_EQ(r.scale[0], least);
  EXPECT_EQ(r.q, std::vector<int8_t>(32, -127));
}

TEST_P(QuantizeTest, NumbersThatAreNotFiniteShowInTheScale) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::nanf("")}) {
    for (int at = 0; at < 32; ++at) {
      std::vector<float> x = random_values(32, 3);
      x[at] = bad;
      EXPECT_FALSE(std::isfinite(Quantize(x).scale[0])) << bad << " at " << at;
      ExpectAsReference(x);
    }
  }
}

TEST_P(QuantizeTest, EveryLevelGivesTheReferencesBits) {
  for (int exponent = -149; exponent < 128; exponent += 3) {
    ExpectAsReference(random_values(32 * 7, exponent + 200, std::ldexp(1.0f, exponent)));
  }
  ExpectAsReference({});
}

INSTANTIATE_TEST_SUITE_P(Levels, QuantizeTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
