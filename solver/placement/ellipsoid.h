// The ellipsoid method's one operation, for few dimensions: cutting an ellipsoid in halves. What is
// maximised over it is neuron_placement's.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace thermocline {

// All points that may still be the best one: {x : (x - center)' * shape^-1 * (x - center) <= 1}.
class Ellipsoid {
 public:
  // Around the box [0, side]^n.
  Ellipsoid(int n, double side) : n_(n), center_(n, side / 2), shape_(n * n, 0.0) {
    for (int i = 0; i < n; ++i) At(i, i) = side * side / 4 * n;
  }
  const std::vector<double>& center() const { return center_; }

  int FirstNegative() const {  // a coordinate of the center, or -1
    const auto found = std::find_if(center_.begin(), center_.end(), [](double x) { return x < 0; });
    return found == center_.end() ? -1 : static_cast<int>(found - center_.begin());
  }

  // Keeps the half on the side of `slope`, in the smallest ellipsoid around it (Grötschel, Lovász,
  // Schrijver 1988, 3.1). Returns the most that a linear function of this slope can rise in it.
  double CutTowards(const std::vector<double>& slope) {
    std::vector<double> step(n_, 0.0);
    double square = 0;
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < n_; ++j) step[i] += At(i, j) * slope[j];
      square += step[i] * slope[i];
    }
    if (!(square > 0)) return 0;
    const double length = std::sqrt(square);
    const double n = n_;
    for (int i = 0; i < n_; ++i) {
      step[i] /= length;
      center_[i] += step[i] / (n + 1);
    }
    const double grow = n_ == 1 ? 0.25 : n * n / (n * n - 1);
    const double shrink = n_ == 1 ? 0 : 2 / (n + 1);
    for (int i = 0; i < n_; ++i) {
      for (int j = 0; j < n_; ++j) At(i, j) = grow * (At(i, j) - shrink * step[i] * step[j]);
    }
    return length;
  }

 private:
  double& At(int i, int j) { return shape_[i * n_ + j]; }

  const int n_;
  std::vector<double> center_;
  std::vector<double> shape_;  // [n, n]
};

}  // namespace thermocline
