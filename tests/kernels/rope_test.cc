// Rotary position embedding: every level against the reference, the levels against f64.
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

struct Tables {
  std::vector<float> cos, sin;  // [n_rot / 2]
};

Tables random_tables(int64_t n_pairs, uint32_t seed) {
  Tables tables;
  for (const float angle : random_values(n_pairs, seed, 3.0f)) {
    tables.cos.push_back(std::cos(angle));
    tables.sin.push_back(std::sin(angle));
  }
  return tables;
}

class RopeTest : public testing::TestWithParam<Isa> {
 protected:
  std::vector<float> rotated(Isa isa, const std::vector<float>& x, const Tables& tables) {
    AtPageEnd<float> x_at(x), cos(tables.cos), sin(tables.sin);
    ops(isa).rope_interleaved(x_at.data(), std::ssize(x), cos.data(), sin.data());
    return x_at.values();
  }
};

TEST_P(RopeTest, EveryLengthEqualsTheReference) {
  for (int64_t n_pairs = 0; n_pairs <= 66; ++n_pairs) {
    const std::vector<float> x = random_values(2 * n_pairs, 1);
    const Tables tables = random_tables(n_pairs, 2);
    EXPECT_TRUE(same_bits(rotated(GetParam(), x, tables), rotated(Isa::kReference, x, tables)))
        << 2 * n_pairs;
  }
}

TEST_P(RopeTest, QuarterTurnSwapsAPair) {
  const std::vector<float> x = random_values(40, 3);
  const std::vector<float> y =
      rotated(GetParam(), x, {std::vector<float>(20, 0.0f), std::vector<float>(20, 1.0f)});
  for (int i = 0; i < 40; i += 2) {
    EXPECT_EQ(y[i], -x[i + 1]);
    EXPECT_EQ(y[i + 1], x[i]);
  }
}

TEST_P(RopeTest, IsCloseToF64) {
  const int64_t n_rot = 100;
  const std::vector<float> x = random_values(n_rot, 4);
  const Tables tables = random_tables(n_rot / 2, 5);
  std::vector<double> expected(n_rot), tolerance(n_rot);
  for (int64_t i = 0; i < n_rot; i += 2) {
    const double cos = tables.cos[i / 2], sin = tables.sin[i / 2];
    expected[i] = x[i] * cos - x[i + 1] * sin;
    expected[i + 1] = x[i] * sin + x[i + 1] * cos;
    // One rounding of a product, one of the sum.
    tolerance[i] = 2.01 * kRounding * (std::abs(x[i] * cos) + std::abs(x[i + 1] * sin));
    tolerance[i + 1] = 2.01 * kRounding * (std::abs(x[i] * sin) + std::abs(x[i + 1] * cos));
  }
  EXPECT_TRUE(within(rotated(GetParam(), x, tables), expected, tolerance));
}

INSTANTIATE_TEST_SUITE_P(Levels, RopeTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
