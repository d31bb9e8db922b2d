// The gated activations: every level against the reference, the levels against f64.
#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Activation = void (*)(const float* gate, const float* up, int64_t n, float* out);

std::vector<float> apply(Activation activation, const std::vector<float>& gate,
                         const std::vector<float>& up) {
  AtPageEnd<float> gate_at(gate), up_at(up), out(std::ssize(gate));
  activation(gate_at.data(), up_at.data(), std::ssize(gate), out.data());
  return out.values();
}

class ActivationTest : public testing::TestWithParam<Isa> {
 protected:
  const Ops& level_ = ops(GetParam());
  const Ops& reference_ = ops(Isa::kReference);
};

TEST_P(ActivationTest, EveryLengthEqualsTheReference) {
  for (const int64_t n : lengths()) {
    const std::vector<float> gate = random_values(n, 1, 5.0f), up = random_values(n, 2);
    EXPECT_TRUE(same_bits(apply(level_.relu_mul, gate, up), apply(reference_.relu_mul, gate, up)))
        << n;
    EXPECT_TRUE(same_bits(apply(level_.silu_mul, gate, up), apply(reference_.silu_mul, gate, up)))
        << n;
  }
}

TEST_P(ActivationTest, SpecialGatesEqualTheReference) {
  const std::vector<float> gate = {0.0f,   -0.0f,  1e-40f, -1e-40f, 88.7f,  -88.7f,    88.8f,
                                   -88.8f, 103.9f, -104.f, 1e30f,   -1e30f, kInfinity, -kInfinity,
                                   kNan,   -kNan,  87.5f,  -87.5f,  -3e38f, 3e38f};
  for (const float value : {1.0f, -2.5f, 0.0f, -0.0f, kInfinity, kNan}) {
    const std::vector<float> up(gate.size(), value);
    EXPECT_TRUE(same_bits(apply(level_.relu_mul, gate, up), apply(reference_.relu_mul, gate, up)));
    EXPECT_TRUE(same_bits(apply(level_.silu_mul, gate, up), apply(reference_.silu_mul, gate, up)));
  }
}

TEST_P(ActivationTest, ReluKeepsWhatFiresAndNan) {
  const std::vector<float> out =
      apply(level_.relu_mul, {-3.0f, 3.0f, 0.0f, -kInfinity, kInfinity, kNan},
            {5.0f, 5.0f, 5.0f, 5.0f, 5.0f, 5.0f});
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 5),
            (std::vector<float>{0.0f, 15.0f, 0.0f, 0.0f, kInfinity}));
  EXPECT_TRUE(std::isnan(out[5]));
}

TEST_P(ActivationTest, SiluIsCloseToF64) {
  std::vector<float> gate, up;
  for (double g = -110; g < 110; g += 0.0131) gate.push_back(static_cast<float>(g));
  up = random_values(std::ssize(gate), 3);
  std::vector<double> expected, tolerance;
  for (size_t i = 0; i < gate.size(); ++i) {
    expected.push_back(gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
    // exp errs by 1.01 ulp (2.02 roundings), then a sum, a quotient, a product. Where exp(-gate) is
    // past f32 the result is 0 instead of |gate| / exp(-gate) < 89 / 3.4e38.
    tolerance.push_back(5.03 * kRounding * std::abs(expected[i]) + 2.7e-37 * std::abs(up[i]));
  }
  EXPECT_TRUE(within(apply(level_.silu_mul, gate, up), expected, tolerance));
}

TEST_P(ActivationTest, WorksInPlace) {
  const std::vector<float> gate = random_values(45, 4), up = random_values(45, 5);
  AtPageEnd<float> gate_at(gate), up_at(up);
  level_.silu_mul(gate_at.data(), up_at.data(), 45, gate_at.data());
  EXPECT_TRUE(same_bits(gate_at.values(), apply(level_.silu_mul, gate, up)));
}

INSTANTIATE_TEST_SUITE_P(Levels, ActivationTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
