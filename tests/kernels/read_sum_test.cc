// That the plain read reads every byte once and no other, at every level.
#include <gtest/gtest.h>

#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

class ReadSumTest : public testing::TestWithParam<Isa> {};

// Word by word from the definition, apart from the reference's code.
uint64_t sum_of_bytes(const std::vector<uint8_t>& bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += uint64_t{bytes[i]} << (i % 8 * 8);
  return sum;
}

TEST_P(ReadSumTest, EveryByteCountsOnceAtAnyLengthAndStart) {
  std::mt19937 generator(1);
  for (int64_t n = 0; n <= 1200; ++n) {
    std::vector<uint8_t> bytes(n);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
    AtPageEnd<uint8_t> data(bytes);  // so starts are at any alignment
    ASSERT_EQ(ops(GetParam()).read_sum(data.data(), n), sum_of_bytes(bytes)) << n << " bytes";
  }
}

TEST_P(ReadSumTest, SumsWrap) {
  const std::vector<uint64_t> words(100, ~uint64_t{0});
  EXPECT_EQ(ops(GetParam()).read_sum(words.data(), 800), static_cast<uint64_t>(-100));
}

INSTANTIATE_TEST_SUITE_P(Levels, ReadSumTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
