// The tail of a context merged into what attend made of the others: against f64 within derived
// bounds.
#include "tests/kernels/cuda/attend_testing.h"

namespace thermocline::kernels::testing {
namespace {

// What merge_tail is given, but for device memory.
struct TailStep {
  int64_t n_tokens, tail_stride;
  int32_t n_heads, d_head;
  std::vector<float> state;  // [n_tokens, n_heads, 2]
  std::vector<float> tail;   // [n_tokens, tail_stride]
  std::vector<float> out;    // [n_tokens, n_heads, d_head]

  float* tail_of(int64_t row) {
    return &tail[row / n_heads * tail_stride + row % n_heads * (2 + d_head)];
  }
};

class MergeTail : public DeviceTest {
 protected:
  static TailStep RandomStep(int64_t n_tokens, int32_t n_heads, int32_t d_head, int64_t gap) {
    const int64_t stride = n_heads * (2 + d_head) + gap, n_rows = n_tokens * n_heads;
    TailStep step = {n_tokens,
                     stride,
                     n_heads,
                     d_head,
                     random_values(n_rows * 2, 1, 3.0f),
                     random_values(n_tokens * stride, 2, 3.0f),
                     random_values(n_rows * d_head, 3)};
    for (int64_t row = 0; row < n_rows; ++row) {
      for (float* sum : {&step.state[row * 2 + 1], step.tail_of(row) + 1}) {
        *sum = 1.0f + std::abs(*sum);
      }
    }
    return step;
  }
  std::vector<float> Merge(const TailStep& step) {
    float* out = device_->Upload(step.out);
    device_->Check(ops_.merge_tail(stream_, device_->Upload(step.state), device_->Upload(step.tail),
                                   step.tail_stride, step.n_tokens, step.n_heads, step.d_head,
                                   out));
    return device_->Download(out, std::ssize(step.out));
  }
  void ExpectCloseToF64(TailStep step) {
    Judged judged(step.out.size());
    for (int64_t i = 0; i < std::ssize(step.out); ++i) {
      const int64_t row = i / step.d_head;
      const double max = step.state[row * 2];
      const float* tail = step.tail_of(row);
      const double both = std::max<double>(max, tail[0]);
      const double a = step.state[row * 2 + 1] * std::exp(max - both);
      const double b = std::exp(tail[0] - both);
      const double tail_o = tail[2 + i % step.d_head];
      judged.expected[i] = (step.out[i] * a + tail_o * b) / (a + tail[1] * b);
      judged.tolerance[i] = (2 * std::abs(max - tail[0]) + 12) * kRounding *
                                (std::abs(step.out[i]) * a + std::abs(tail_o) * b) /
                                (a + tail[1] * b) +
                            0x1p-140;
    }
    EXPECT_TRUE(within(Merge(step), judged.expected, judged.tolerance))
        << step.n_heads << " heads of " << step.d_head;
  }
};

TEST_P(MergeTail, IsCloseToF64) {
  ExpectCloseToF64(RandomStep(1, 1, 32, 0));
  ExpectCloseToF64(RandomStep(3, 5, 96, 14));
  ExpectCloseToF64(RandomStep(2, 7, 100, 2));
  ExpectCloseToF64(RandomStep(5, 32, 128, 0));
  ExpectCloseToF64(RandomStep(2, 3, 256, 30));
}

TEST_P(MergeTail, MaxesFarApartAreCloseToF64) {
  for (const float apart : {0.0f, 1e-6f, 20.0f, 87.5f, 103.0f, 105.0f, 1e4f}) {
    for (const float sign : {-1.0f, 1.0f}) {
      TailStep step = RandomStep(1, 2, 32, 0);
      for (int64_t row = 0; row < 2; ++row) {
        step.tail_of(row)[0] = step.state[row * 2] + sign * apart;
      }
      ExpectCloseToF64(step);
    }
  }
}

TEST_P(MergeTail, WithoutATailOutStaysAsItIs) {
  for (const float other : {std::nanf(""), INFINITY, -INFINITY, 0.0f}) {
    TailStep step = RandomStep(2, 3, 64, 6);
    const std::vector<float> merged = Merge(step);
    for (const int64_t row : {1, 5}) {  // of token 0, and the last
      std::fill_n(step.tail_of(row), 2 + 64, other);
      step.tail_of(row)[1] = 0.0f;
    }
    std::vector<float> expected = merged;
    for (const int64_t row : {1, 5}) {
      std::copy_n(step.out.begin() + row * 64, 64, expected.begin() + row * 64);
    }
    EXPECT_TRUE(same_bits(Merge(step), expected));
  }
}

TEST_P(MergeTail, NansOfTheTailShow) {
  TailStep step = RandomStep(1, 3, 32, 0);
  const std::vector<float> expected = Merge(step);
  step.tail_of(1)[1] = std::nanf("");
  step.tail_of(2)[2 + 9] = std::nanf("");
  const std::vector<float> out = Merge(step);
  for (int64_t i = 0; i < 3 * 32; ++i) {
    if (i / 32 == 1 || i == 2 * 32 + 9) {
      EXPECT_TRUE(std::isnan(out[i])) << i;
    } else {
      EXPECT_EQ(out[i], expected[i]) << i;
    }
  }
}

// The positions of a context from `cut` on, in f64, rounded once.
TailStep TailOf(const AttendProblem& whole, int64_t cut) {
  const KvShape& shape = whole.shape;
  const int64_t stride = shape.n_heads * (2 + shape.d_head);
  TailStep step = {std::ssize(whole.tokens), stride, shape.n_heads, shape.d_head, {}, {}, {}};
  step.tail.assign(static_cast<size_t>(step.n_tokens * stride), std::nanf(""));
  for (int64_t i = 0; i < whole.n_rows(); ++i) {
    const auto t = static_cast<size_t>(i / shape.n_heads);
    float* const tail = step.tail_of(i);
    const int64_t end = whole.End(whole.tokens[t]);
    tail[1] = 0.0f;
    if (end <= cut) continue;
    const AttendRow row(whole, t, static_cast<int32_t>(i % shape.n_heads), cut, end);
    tail[0] = static_cast<float>(row.max);
    const double shift = std::exp(row.max - tail[0]);
    tail[1] = static_cast<float>(row.sum * shift);
    for (int64_t d = 0; d < shape.d_head; ++d) {
      tail[2 + d] = static_cast<float>(row.o[d] * shift);
    }
  }
  return step;
}

// attend's error in out, and once more as that of the weight that state gives it; then merge_tail's
// own. Maxes are at most 2 * magnitude apart.
TEST_P(MergeTail, AContextCutAnywhereGivesTheWhole) {
  for (const DeviceKvType type : {DeviceKvType::kF16, DeviceKvType::kQ8_0}) {
    AttendProblem whole({type, 2, 600, 6, 2, 64}, {{0, 599}, {1, 300}, {0, 255}, {1, 0}}, 0);
    whole.Fill();
    Judged judged = JudgeOut(whole);
    for (double& tolerance : judged.tolerance) tolerance *= 2.2;
    for (const int64_t cut : {1, 31, 255, 256, 257, 300, 301, 512, 599}) {
      AttendProblem cached = whole;
      cached.shape.n_ctx = cut;
      cached.k = KvPlane(cached.shape);
      cached.v = KvPlane(cached.shape);
      cached.Fill();
      const Attended attended =
          Attend(device_.get(), cached, Upload(device_.get(), cached.shape, cached.k, cached.v));
      TailStep step = TailOf(whole, cut);
      step.state = device_->Download(attended.state, cached.n_rows() * 2);
      step.out = device_->Download(attended.out, std::ssize(cached.q));
      EXPECT_TRUE(within(Merge(step), judged.expected, judged.tolerance))
          << Name(whole.shape) << ", cut at " << cut;
    }
  }
}

INSTANTIATE_DEVICE_TESTS(MergeTail);

}  // namespace
}  // namespace thermocline::kernels::testing
