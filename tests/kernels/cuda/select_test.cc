// Which rows are chosen, on every device: as one host loop says it.
#include <numeric>

#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

struct Scores {
  int64_t n_tokens, n_rows, stride;
  std::vector<float> values, bias;  // bias: none, or [n_rows]
  float threshold;
  bool is_magnitude = false;
  std::vector<uint8_t> classes = {};  // none, or [n_tokens]
  float other_thresholds[2] = {};     // of classes 1 and 2
  std::vector<uint8_t> among = {};    // none, or [n_tokens, n_rows]

  bool Chooses(int64_t t, int64_t row) const {
    float score = values[t * stride + row];
    if (!bias.empty()) score += bias[row];
    if (is_magnitude) score = std::fabs(score);
    const int number = classes.empty() ? 0 : classes[t];
    const bool is_above = !(score <= (number == 0 ? threshold : other_thresholds[number - 1]));
    return is_above && (among.empty() || among[t * n_rows + row] != 0);
  }
};

Scores RandomScores(int64_t n_tokens, int64_t n_rows, bool has_bias, float threshold) {
  const int64_t stride = n_rows + 3;
  const auto seed = static_cast<uint32_t>(n_rows + n_tokens);
  return {n_tokens,
          n_rows,
          stride,
          random_values(n_tokens * stride, seed),
          has_bias ? random_values(n_rows, seed + 1, 0.2f) : std::vector<float>(),
          threshold};
}

class DeviceSelect : public DeviceTest {
 protected:
  // Returns how many are chosen.
  int64_t ExpectAsOneLoop(const Scores& s) {
    std::vector<int32_t> expected;
    std::vector<uint8_t> expected_mask(s.n_tokens * s.n_rows);
    for (int64_t row = 0; row < s.n_rows; ++row) {
      bool any = false;
      for (int64_t t = 0; t < s.n_tokens; ++t) {
        const bool chosen = s.Chooses(t, row);
        expected_mask[t * s.n_rows + row] = chosen;
        any |= chosen;
      }
      if (any) expected.push_back(static_cast<int32_t>(row));
    }
    auto* rows = device_->Allocate<int32_t>(s.n_rows);
    auto* n = device_->Allocate<int32_t>(1);
    auto* mask = s.among.empty() ? device_->Allocate<uint8_t>(s.n_tokens * s.n_rows)
                                 : device_->Upload(s.among);
    auto* counts = device_->Upload(std::vector<uint64_t>{1000, 1 << 20});
    device_->Check(ops_.select(stream_, OnDevice(s), rows, n, mask, counts));
    const int64_t n_chosen = device_->Download(n, 1)[0];
    EXPECT_EQ(n_chosen, std::ssize(expected)) << s.n_rows;
    EXPECT_EQ(device_->Download(mask, s.n_tokens * s.n_rows), expected_mask) << s.n_rows;
    if (s.among.empty()) ExpectBits(s, expected_mask);
    const uint64_t n_ones =
        std::accumulate(expected_mask.begin(), expected_mask.end(), uint64_t{0});
    EXPECT_EQ(device_->Download(counts, 2),
              (std::vector<uint64_t>{1000 + n_ones, (1 << 20) + expected.size()}));
    const std::vector<int32_t> all = device_->Download(rows, s.n_rows);
    EXPECT_EQ(std::vector<int32_t>(all.begin(), all.begin() + std::ssize(expected)), expected);
    for (int64_t i = std::ssize(expected); i < s.n_rows; ++i) {  // 0xff: untouched
      if (all[i] != -1) ADD_FAILURE() << "written behind the list, at " << i;
    }
    return n_chosen;
  }

 private:
  void ExpectBits(const Scores& s, const std::vector<uint8_t>& mask) {
    const int64_t n_words = (s.n_rows + 31) / 32, stride = n_words + 3;
    std::vector<uint32_t> expected(s.n_tokens * stride);
    for (int64_t t = 0; t < s.n_tokens; ++t) {
      for (int64_t row = 0; row < s.n_rows; ++row) {
        expected[t * stride + row / 32] |= uint32_t{mask[t * s.n_rows + row]} << row % 32;
      }
      for (int64_t i = n_words; i < stride; ++i) expected[t * stride + i] = ~0u;  // untouched
    }
    auto* bits = device_->Allocate<uint32_t>(s.n_tokens * stride);
    device_->Check(ops_.select_bits(stream_, OnDevice(s), bits, stride));
    EXPECT_EQ(device_->Download(bits, s.n_tokens * stride), expected) << s.n_rows;
  }
  DeviceSelection OnDevice(const Scores& s) {
    return {.scores = device_->Upload(s.values),
            .stride = s.stride,
            .bias = s.bias.empty() ? nullptr : device_->Upload(s.bias),
            .is_magnitude = s.is_magnitude,
            .classes = s.classes.empty() ? nullptr : device_->Upload(s.classes),
            .thresholds = {s.threshold, s.other_thresholds[0], s.other_thresholds[1]},
            .is_among_mask = !s.among.empty(),
            .n_tokens = s.n_tokens,
            .n_rows = s.n_rows};
  }
};

TEST_P(DeviceSelect, AnyNumberOfRowsAndTokens) {
  for (const int64_t n_rows : {1, 2, 31, 32, 33, 255, 1000, 1024, 1025, 4099, 11008}) {
    for (const int64_t n_tokens : {1, 2, 5}) {
      for (const bool has_bias : {false, true}) {
        ExpectAsOneLoop(RandomScores(n_tokens, n_rows, has_bias, 0.7f));
      }
    }
  }
}

TEST_P(DeviceSelect, ManyRowsTakeSeveralRounds) {
  for (const int64_t n_rows : {32768, 32769, 65537, 1 << 20}) {
    ExpectAsOneLoop(RandomScores(1, n_rows, false, 1.1f));
  }
  ExpectAsOneLoop(RandomScores(3, 70000, true, 1.1f));
}

TEST_P(DeviceSelect, AllRowsOrNone) {
  EXPECT_EQ(ExpectAsOneLoop(RandomScores(2, 40001, true, -100.0f)), 40001);
  EXPECT_EQ(ExpectAsOneLoop(RandomScores(2, 40001, true, 100.0f)), 0);
}

TEST_P(DeviceSelect, NothingToChooseFromIsAnEmptyList) {
  EXPECT_EQ(ExpectAsOneLoop(RandomScores(1, 0, false, 0.0f)), 0);
  EXPECT_EQ(ExpectAsOneLoop(RandomScores(0, 100, false, 0.0f)), 0);
}

TEST_P(DeviceSelect, TheThresholdItselfIsNotAboveItAndANanIsChosen) {
  Scores s = {1, 4, 4, {0.5f, std::nextafter(0.5f, 1.0f), std::nanf(""), -INFINITY}, {}, 0.5f};
  EXPECT_EQ(ExpectAsOneLoop(s), 2);
  s.bias = {std::nanf(""), 0.0f, 0.0f, INFINITY};  // the last one a NaN, too
  EXPECT_EQ(ExpectAsOneLoop(s), 4);
}

TEST_P(DeviceSelect, MagnitudesAreComparedWhereTheyAreAskedFor) {
  for (const bool has_bias : {false, true}) {
    Scores s = RandomScores(2, 1025, has_bias, 0.7f);
    s.is_magnitude = true;
    ExpectAsOneLoop(s);
  }
}

TEST_P(DeviceSelect, EachTokenHasTheThresholdOfItsClass) {
  Scores s = RandomScores(5, 1025, false, 2.0f);
  s.classes = {0, 2, 1, 0, 2};
  s.other_thresholds[0] = 1.0f;
  s.other_thresholds[1] = 3.0f;
  EXPECT_LT(ExpectAsOneLoop(s), 1025);
  s.other_thresholds[1] = std::nanf("");  // everything is above it
  EXPECT_EQ(ExpectAsOneLoop(s), 1025);
}

TEST_P(DeviceSelect, AmongAMaskNoOtherRowIsChosen) {
  Scores s = RandomScores(3, 1025, false, 0.5f);
  s.among.resize(3 * 1025);
  for (int64_t i = 0; i < 3 * 1025; ++i) {
    s.among[i] = i % 3 == 0;
    if (i % 3 != 0) s.values[i / 1025 * s.stride + i % 1025] = std::nanf("");
  }
  EXPECT_LT(ExpectAsOneLoop(s), 1025);
}

INSTANTIATE_DEVICE_TESTS(DeviceSelect);

}  // namespace
}  // namespace thermocline::kernels::testing
