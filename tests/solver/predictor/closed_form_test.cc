// The closed form against a singular value decomposition by brute force.
#include "solver/predictor/closed_form.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <limits>

#include "tests/solver/predictor/synthetic_layer.h"

namespace thermocline {
namespace {

using testing::MakeSyntheticLayer;
using testing::RandomMatrix;
using testing::SyntheticLayer;

Eigen::MatrixXd AsEigen(const Matrix& m) {
  return Eigen::Map<const Eigen::Matrix<float, -1, -1, Eigen::RowMajor>>(m.values.data(), m.n_rows,
                                                                         m.n_cols)
      .cast<double>();
}

// The small layer is decomposed as a whole, in the large one the iteration has to find 5 + 32 of
// 128 directions.
class ClosedFormSizeTest : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ClosedFormSizeTest, ::testing::Values(24, 128));

TEST_P(ClosedFormSizeTest, EqualsTruncatedSvdOfTheOutputs) {
  const SyntheticLayer layer = MakeSyntheticLayer(400, GetParam(), 140, 1);
  const absl::StatusOr<LowRank> low = ClosedForm(layer.samples.view(), layer.gate.view(), 5, 2);
  ASSERT_TRUE(low.ok()) << low.status();
  // The best rank 5 of the outputs themselves (Eckart and Young) is the least error there is.
  const Eigen::MatrixXd outputs = AsEigen(layer.samples) * AsEigen(layer.gate).transpose();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(outputs, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::MatrixXd best = svd.matrixU().leftCols(5) *
                               svd.singularValues().head(5).asDiagonal() *
                               svd.matrixV().leftCols(5).transpose();
  const Eigen::MatrixXd ours =
      AsEigen(layer.samples) * AsEigen(low->fc1).transpose() * AsEigen(low->fc2).transpose();
  // The ridge of 1e-4 and f32 keep the two apart.
  EXPECT_LT((ours - best).norm(), 0.01 * best.norm());
  EXPECT_LT((ours - outputs).norm(), 1.0001 * (best - outputs).norm());
}

TEST(ClosedFormTest, HiddenValuesHaveUnitCovariance) {
  const SyntheticLayer layer = MakeSyntheticLayer(4000, 24, 40, 2);
  const absl::StatusOr<LowRank> low = ClosedForm(layer.samples.view(), layer.gate.view(), 6, 1);
  ASSERT_TRUE(low.ok()) << low.status();
  const Eigen::MatrixXd hidden = AsEigen(layer.samples) * AsEigen(low->fc1).transpose();
  const Eigen::MatrixXd covariance = hidden.transpose() * hidden / hidden.rows();
  EXPECT_LT((covariance - Eigen::MatrixXd::Identity(6, 6)).norm(), 0.02);
}

TEST(ClosedFormTest, CutIsTheClosedFormOfThatRank) {
  const SyntheticLayer layer = MakeSyntheticLayer(300, 16, 24, 3);
  const absl::StatusOr<LowRank> large = ClosedForm(layer.samples.view(), layer.gate.view(), 8, 1);
  const absl::StatusOr<LowRank> small = ClosedForm(layer.samples.view(), layer.gate.view(), 3, 1);
  ASSERT_TRUE(large.ok() && small.ok());
  const LowRank cut = large->Cut(3);
  EXPECT_EQ(cut.fc1.values, small->fc1.values);
  EXPECT_EQ(cut.fc2.n_cols, 3);
  for (size_t i = 0; i < cut.fc2.values.size(); ++i) {
    EXPECT_NEAR(cut.fc2.values[i], small->fc2.values[i], 1e-4);
  }
}

TEST(ClosedFormTest, FullRankIsTheGateItself) {
  const SyntheticLayer layer = MakeSyntheticLayer(300, 16, 24, 4);
  const absl::StatusOr<LowRank> low = ClosedForm(layer.samples.view(), layer.gate.view(), 16, 1);
  ASSERT_TRUE(low.ok()) << low.status();
  EXPECT_LT((AsEigen(low->fc2) * AsEigen(low->fc1) - AsEigen(layer.gate)).norm(),
            1e-3 * AsEigen(layer.gate).norm());
}

TEST(ClosedFormTest, InputsThatNeverChangeAreNoError) {
  Matrix samples(50, 16);
  EXPECT_TRUE(ClosedForm(samples.view(), RandomMatrix(24, 16, 1).view(), 4, 1).ok());
}

TEST(ClosedFormTest, BadArgumentsAreNamed) {
  SyntheticLayer layer = MakeSyntheticLayer(50, 16, 24, 5);
  EXPECT_EQ(ClosedForm(layer.samples.view(), layer.gate.view(), 17, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ClosedForm(layer.samples.view(), RandomMatrix(24, 15, 1).view(), 4, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  layer.gate.values[7] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ClosedForm(layer.samples.view(), layer.gate.view(), 4, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  layer = MakeSyntheticLayer(50, 16, 24, 5);
  layer.samples.values[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ClosedForm(layer.samples.view(), layer.gate.view(), 4, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thermocline
