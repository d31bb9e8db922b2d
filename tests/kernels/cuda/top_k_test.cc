// The largest logits on every device, judged by a sort and by f64 sums.
#include <algorithm>
#include <numeric>

#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

struct TopK {
  std::vector<float> values;
  std::vector<int32_t> indices;
  float log_sum;
};

class DeviceTopK : public DeviceTest {
 protected:
  TopK Run(const std::vector<float>& logits, int32_t k, int32_t first = 0) {
    auto* values = device_->Allocate<float>(k);
    auto* indices = device_->Allocate<int32_t>(k);
    auto* log_sum = device_->Allocate<float>(1);
    device_->Check(ops_.top_k(stream_, device_->Upload(logits), std::ssize(logits), k, first,
                              values, indices, log_sum, device_->Allocate<uint8_t>(top_k_bytes())));
    return {device_->Download(values, k), device_->Download(indices, k),
            device_->Download(log_sum, 1)[0]};
  }

  TopK ExpectAsSorted(const std::vector<float>& logits, int32_t k) {
    std::vector<int32_t> indices(logits.size());
    std::iota(indices.begin(), indices.end(), 0);
    const auto before = [&](int32_t i, int32_t j) {
      const float a = logits[i], b = logits[j];
      const bool a_counts = a < INFINITY, b_counts = b < INFINITY;  // not so NaN
      if (a_counts != b_counts) return a_counts;
      return a != b && a_counts ? a > b : i < j;
    };
    std::partial_sort(indices.begin(), indices.begin() + k, indices.end(), before);
    indices.resize(k);
    std::vector<float> values;
    for (const int32_t i : indices) values.push_back(logits[i]);
    const TopK top = Run(logits, k);
    EXPECT_EQ(top.indices, indices) << k << " of " << logits.size();
    EXPECT_TRUE(same_bits(top.values, values)) << k << " of " << logits.size();
    return top;
  }
};

constexpr int64_t kSizes[] = {1, 2, 31, 63, 64, 65, 128, 1000, 4095, 4097, 32000, 151936};

TEST_P(DeviceTopK, IsWhatASortGives) {
  for (const int64_t n : kSizes) {
    const std::vector<float> logits = random_values(n, static_cast<uint32_t>(n), 4.0f);
    for (const int32_t k : {1, 40, 64}) {
      if (k <= n) ExpectAsSorted(logits, k);
    }
  }
}

TEST_P(DeviceTopK, SortedLogitsOfEitherDirection) {
  std::vector<float> logits(20000);
  std::iota(logits.begin(), logits.end(), -10000.0f);
  ExpectAsSorted(logits, 64);
  std::reverse(logits.begin(), logits.end());
  ExpectAsSorted(logits, 64);
}

// Runs of 64 that one warp sees one after another, so that its merges decide: from [begin, end) of
// each comes what is larger than all before.
TEST_P(DeviceTopK, TheBestMayAllBeInTheRunsOfOneWarp) {
  const int64_t ranges[][2] = {{0, 64}, {0, 40}, {24, 64}, {3, 4}, {50, 51}};
  for (const auto& [begin, end] : ranges) {
    std::vector<float> logits(64 * 64 * 8 * 10, -1.0f);
    for (int64_t run = 0; run < 80; run += 8) {  // the first warp's of the first block
      const std::vector<float> noise = random_values(64, static_cast<uint32_t>(run));
      for (int64_t i = begin; i < end; ++i) {
        logits[64 * run + i] = static_cast<float>(100 * (run + 1)) + noise[i];
      }
    }
    ExpectAsSorted(logits, 64);
  }
}

TEST_P(DeviceTopK, TiesGoToTheLowerIndex) {
  std::vector<float> logits = random_values(9000, 1);
  for (float& logit : logits) logit = std::rint(2 * logit);  // both zeros are among them
  ExpectAsSorted(logits, 64);
  for (float& logit : logits) logit = std::signbit(logit) ? -0.0f : 0.0f;
  ExpectAsSorted(logits, 64);
}

TEST_P(DeviceTopK, NanAndInfinityAreTheSmallest) {
  std::vector<float> logits = random_values(5000, 2);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i % 100 != 7) logits[i] = i % 2 == 0 ? std::nanf("") : -std::nanf("");
  }
  logits[1007] = INFINITY;
  logits[2007] = -INFINITY;
  ExpectAsSorted(logits, 64);
  EXPECT_TRUE(std::isnan(ExpectAsSorted(std::vector<float>(70, std::nanf("")), 64).log_sum));
}

TEST_P(DeviceTopK, IndicesCountFromTheFirst) {
  EXPECT_EQ(Run({1, 3, 2}, 2, 50).indices, (std::vector<int32_t>{51, 52}));
}

TEST_P(DeviceTopK, LogSumIsWithinItsBoundOfF64) {
  for (const int64_t n : kSizes) {
    for (const float deviation : {0.0f, 1.0f, 5.0f, 300.0f}) {
      const std::vector<float> logits = random_values(n, static_cast<uint32_t>(n), deviation);
      const double largest = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const float logit : logits) sum += std::exp(logit - largest);
      const double expected = largest + std::log(sum), size = static_cast<double>(n);
      const double bound = size / 16384 + 3 * std::log(size) + 21 + std::abs(expected);
      EXPECT_NEAR(Run(logits, 1).log_sum, expected, 1.01 * bound * kRounding) << n;
    }
  }
}

TEST_P(DeviceTopK, LogSumOfInfinitiesIsTheirs) {
  std::vector<float> logits = random_values(3000, 3);
  std::fill(logits.begin(), logits.begin() + 2900, -INFINITY);
  EXPECT_TRUE(std::isfinite(Run(logits, 1).log_sum));
  logits[5] = 1000.0f;  // so far above the others that they would be infinite relative to 0
  EXPECT_EQ(Run(logits, 1).log_sum, 1000.0f);
  for (int i = 2900; i < 3000; ++i) logits[i] = -INFINITY;
  logits[5] = -1000.0f;  // and as far below 0
  EXPECT_EQ(Run(logits, 1).log_sum, -1000.0f);
  logits[2999] = INFINITY;
  EXPECT_EQ(Run(logits, 1).log_sum, INFINITY);
  logits[2998] = -1000.0f;  // beside it, where another part has larger ones
  logits[5] = 1000.0f;
  EXPECT_EQ(Run(logits, 1).log_sum, INFINITY);
  EXPECT_EQ(Run(std::vector<float>(3000, -INFINITY), 1).log_sum, -INFINITY);
}

TEST_P(DeviceTopK, GivesTheSameBitsTwice) {
  const std::vector<float> logits = random_values(32001, 4, 3.0f);
  EXPECT_TRUE(same_bits({Run(logits, 1).log_sum}, {Run(logits, 64).log_sum}));
}

INSTANTIATE_DEVICE_TESTS(DeviceTopK);

}  // namespace
}  // namespace thermocline::kernels::testing
