#include "solver/predictor/closed_form.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <random>

#include "common/util/status_macros.h"
#include "solver/predictor/parallel.h"

namespace thermocline {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Added to the covariance's diagonal, in means of the diagonal: directions that no sample takes
// keep a little weight, and the factorisation exists.
constexpr double kRidge = 1e-4;

// Of the randomized subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061): directions
// beyond those asked for, and rounds. A direction that comes short is one of the weakest.
constexpr int64_t kMoreDirections = 32;
constexpr int kRounds = 6;

Eigen::Map<const RowMajor> AsEigen(const Matrix& m) {
  return {m.values.data(), m.n_rows, m.n_cols};
}

Matrix FromEigen(const Eigen::MatrixXd& from) {
  Matrix m(from.rows(), from.cols());
  Eigen::Map<RowMajor>(m.values.data(), m.n_rows, m.n_cols) = from.cast<float>();
  return m;
}

// The lower factor L of the inputs' covariance, [d_model, d_model].
absl::StatusOr<Eigen::MatrixXd> CovarianceFactor(MatrixView samples, int n_threads) {
  const Matrix sums = TransposedProduct(samples, samples, n_threads);
  Eigen::MatrixXd covariance = AsEigen(sums).cast<double>() / static_cast<double>(samples.n_rows);
  const double mean = covariance.diagonal().mean();
  covariance.diagonal().array() += mean > 0 ? kRidge * mean : 1.0;
  const Eigen::LLT<Eigen::MatrixXd> factor(covariance);
  if (factor.info() != Eigen::Success || !covariance.allFinite()) {
    return absl::InvalidArgumentError("the samples of FFN inputs hold numbers that are not finite");
  }
  return Eigen::MatrixXd(factor.matrixL());
}

constexpr Eigen::Index kAtOnce = 64;  // columns or rows that a thread takes

// One pass of Orthonormal; false, with nothing changed, when the columns are too close to each
// other for it.
bool Orthogonalize(Eigen::MatrixXd* q, int n_threads) {
  const auto in_blocks = [n_threads](Eigen::Index n, const auto& visit) {
    ForParts(n_threads, (n + kAtOnce - 1) / kAtOnce, [&](int64_t part) {
      visit(part * kAtOnce, std::min<Eigen::Index>(kAtOnce, n - part * kAtOnce));
    });
  };
  Eigen::MatrixXd products(q->cols(), q->cols());  // below the diagonal
  in_blocks(q->cols(), [&](Eigen::Index first, Eigen::Index n) {
    const Eigen::Index n_below = q->cols() - first;
    products.block(first, first, n_below, n).noalias() =
        q->rightCols(n_below).transpose() * q->middleCols(first, n);
  });
  const Eigen::LLT<Eigen::MatrixXd> factor(products);
  if (factor.info() != Eigen::Success) return false;
  in_blocks(q->rows(), [&](Eigen::Index first, Eigen::Index n) {
    auto rows = q->middleRows(first, n);
    const Eigen::MatrixXd solved = factor.matrixL().solve(rows.transpose());
    rows = solved.transpose();
  });
  return true;
}

// Columns of length 1 at right angles that span the same space. By Cholesky's factor of their inner
// products, twice, since once leaves an error of the square of their condition (CholeskyQR2;
// Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, ETNA 44, 2015): unlike Householder's reflections it
// runs on several threads.
Eigen::MatrixXd Orthonormal(const Matrix& m, int n_threads) {
  Eigen::MatrixXd q = AsEigen(m).cast<double>();
  const Eigen::RowVectorXd lengths = q.colwise().norm();
  if ((lengths.array() > 0).all()) {  // a column of zeros spans nothing
    q.array().rowwise() /= lengths.array();
    if (Orthogonalize(&q, n_threads) && Orthogonalize(&q, n_threads)) return q;
  }
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(AsEigen(m).cast<double>());
  return qr.householderQ() * Eigen::MatrixXd::Identity(m.n_rows, m.n_cols);
}

// The eigenvectors of the `rank` largest eigenvalues of L^T (gate^T gate) L, strongest first: the
// right singular vectors of gate . L. [d_model, rank]. A whole decomposition takes one thread
// minutes at d_model 4096, and few of its vectors are wanted.
Eigen::MatrixXd LeadingDirections(const Matrix& squares, const Matrix& factor, int64_t rank,
                                  int n_threads) {
  const int64_t d_model = squares.n_rows;
  const auto times_symmetric = [&](const Eigen::MatrixXd& of) {
    const Matrix spread = Product(factor.view(), FromEigen(of).view(), n_threads);
    const Matrix through = Product(squares.view(), spread.view(), n_threads);
    return TransposedProduct(factor.view(), through.view(), n_threads);
  };
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  Matrix start(d_model, std::min(rank + kMoreDirections, d_model));
  for (float& value : start.values) value = normal(random);
  Eigen::MatrixXd basis = Orthonormal(start, n_threads);
  for (int round = 0; round < kRounds; ++round) {
    basis = Orthonormal(times_symmetric(basis), n_threads);
  }
  const Eigen::MatrixXd within = basis.transpose() * AsEigen(times_symmetric(basis)).cast<double>();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(within);  // eigenvalues ascend
  return basis * solver.eigenvectors().rightCols(rank).rowwise().reverse();
}

}  // namespace

LowRank LowRank::Cut(int64_t rank) const {
  LowRank cut = {Matrix(rank, fc1.n_cols), Matrix(fc2.n_rows, rank)};
  std::copy_n(fc1.values.begin(), cut.fc1.values.size(), cut.fc1.values.begin());
  for (int64_t i = 0; i < fc2.n_rows; ++i) std::copy_n(fc2.row(i), rank, cut.fc2.row(i));
  return cut;
}

absl::StatusOr<LowRank> ClosedForm(MatrixView samples, MatrixView gate, int64_t rank,
                                   int n_threads) {
  if (samples.n_rows < 1 || samples.n_cols != gate.n_cols || rank < 1 ||
      rank > std::min(gate.n_rows, gate.n_cols)) {
    return absl::InvalidArgumentError(
        fmt::format("no predictor of rank {} from samples [{}, {}] for a gate of [{}, {}]", rank,
                    samples.n_rows, samples.n_cols, gate.n_rows, gate.n_cols));
  }
  ASSIGN_OR_RETURN(const Eigen::MatrixXd factor, CovarianceFactor(samples, n_threads));
  const Matrix squares = TransposedProduct(gate, gate, n_threads);
  if (!AsEigen(squares).allFinite()) {
    return absl::InvalidArgumentError("the gate's weights hold numbers that are not finite");
  }
  const Eigen::MatrixXd directions = LeadingDirections(squares, FromEigen(factor), rank, n_threads);
  // With Q the directions: fc1 = Q^T L^-1, fc2 = gate L Q.
  const auto lower = factor.triangularView<Eigen::Lower>();
  const Eigen::MatrixXd fc1 = lower.transpose().solve(directions).transpose();
  const Eigen::MatrixXd back = lower * directions;
  return LowRank{FromEigen(fc1), Product(gate, FromEigen(back).view(), n_threads)};
}

}  // namespace thermocline
