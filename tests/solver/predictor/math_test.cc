// Every ISA level of the array functions against the plain loops.
#include "solver/predictor/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/gguf/half.h"
#include "tests/solver/predictor/synthetic_layer.h"

namespace thermocline {
namespace {

using kernels::Isa;
using testing::RandomMatrix;

class MathTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!kernels::isa_supported(GetParam())) GTEST_SKIP() << "not on this machine";
  }
  const math::Math& math() const { return math::math_of(GetParam()); }
};

TEST_P(MathTest, ProductsOfAllShapesAddToWhatIsThere) {
  for (const int64_t rows : {1, 5, 12, 13, 130}) {
    for (const int64_t cols : {1, 15, 16, 33, 64}) {
      for (const int64_t depth : {1, 255, 256, 300}) {
        const Matrix a = RandomMatrix(rows, depth, 1), b = RandomMatrix(depth, cols, 2);
        Matrix c = RandomMatrix(rows, cols, 3), wanted = c;
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < cols; ++j) {
            double sum = c.row(i)[j];
            for (int64_t k = 0; k < depth; ++k) sum += double{a.row(i)[k]} * b.row(k)[j];
            wanted.row(i)[j] = static_cast<float>(sum);
          }
        }
        math().multiply({a.row(0), depth, 1}, b.row(0), cols, rows, cols, depth, c.row(0), cols);
        for (size_t i = 0; i < c.values.size(); ++i) {
          // 300 sums below 64, each rounded by at most 2^-19, at random: 17 roundings, 3e-5.
          ASSERT_NEAR(c.values[i], wanted.values[i], 1e-4) << rows << " " << cols << " " << depth;
        }
      }
    }
  }
}

TEST_P(MathTest, TransposedFactorGivesTheSameProduct) {
  const Matrix a = RandomMatrix(37, 70, 1), b = RandomMatrix(70, 45, 2);
  const Matrix transposed = Transposed(a.view());
  Matrix c(37, 45), of_transposed(37, 45);
  math().multiply({a.row(0), 70, 1}, b.row(0), 45, 37, 45, 70, c.row(0), 45);
  math().multiply({transposed.row(0), 1, 37}, b.row(0), 45, 37, 45, 70, of_transposed.row(0), 45);
  EXPECT_EQ(c.values, of_transposed.values);
}

TEST_P(MathTest, ProductTouchesItsOwnColumnsAlone) {
  const Matrix a = RandomMatrix(3, 4, 1), b = RandomMatrix(4, 20, 2);
  Matrix c(3, 20);
  math().multiply({a.row(0), 4, 1}, b.row(0), 20, 3, 17, 4, c.row(0), 20);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NE(c.row(i)[16], 0);
    for (int64_t j = 17; j < 20; ++j) EXPECT_EQ(c.row(i)[j], 0);
  }
}

TEST_P(MathTest, SlopeIsTheLossesDerivative) {
  const std::vector<float> scores = {-100, -3, -0.5f, 0, 0.5f, 3, 100, -3, 0,
                                     3,    -1, 1,     2, 4,    5, 6,   7,  8};
  const std::vector<float> gates = {-1, -1, -1,   -1, -1, -1, -1, 2, 2,
                                    2,  0,  0.5f, 1,  1,  1,  -2, 3, 4};
  const float scale = 1.5f;
  std::vector<float> slope = scores;
  std::vector<uint16_t> halves;
  for (const float gate : gates) halves.push_back(f32_to_f16(gate));
  math().logistic_slope(slope.data(), halves.data(), scale, std::ssize(slope));
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = 1 / (1 + std::exp(-double{scores[i]}));
    const double wanted = gates[i] > 0 ? gates[i] * scale * (p - 1) : p;
    EXPECT_NEAR(slope[i], wanted, 1e-6) << i;
  }
}

TEST_P(MathTest, FirstStepOfAdamIsTheRateAgainstTheSlope) {
  const int64_t n = 21;
  std::vector<float> weight(n, 1), mean(n), square(n), slope(n);
  for (int64_t i = 0; i < n; ++i) slope[i] = static_cast<float>(i % 3 - 1) * 7;
  const math::AdamStep step = {0.25f, 0.1f, 0.01f, 1 / 0.1f, 1 / 0.01f};
  math().adam(weight.data(), mean.data(), square.data(), slope.data(), step, n);
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_NEAR(weight[i], 1 - 0.25 * (i % 3 - 1), 1e-6);
    EXPECT_NEAR(mean[i], 0.1 * slope[i], 1e-6);
    EXPECT_NEAR(square[i], 0.01 * slope[i] * slope[i], 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, MathTest,
                         ::testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) {
                           return std::string(kernels::isa_supported(info.param)
                                                  ? kernels::ops(info.param).name
                                                  : "unsupported") +
                                  std::to_string(info.index);
                         });

}  // namespace
}  // namespace thermocline
