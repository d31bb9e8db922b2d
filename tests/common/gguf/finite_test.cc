// A number that is none is found wherever a block holds one, and quants are never taken for one.
#include "common/gguf/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/gguf/dequantize.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

using testing::Bytes;

class FiniteTest : public ::testing::TestWithParam<TypeInfo> {};

bool IsFiniteByValues(const TypeInfo& info, const Bytes& block) {
  std::vector<float> values(info.block_size);
  dequantize(info.type, block.data(), info.block_size, values.data());
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

TEST_P(FiniteTest, RandomWeightsAreFinite) {
  EXPECT_EQ(FirstNotFinite(GetParam().type, testing::RandomBlocks(GetParam().type, 4096, 1, 1)),
            -1);
  EXPECT_EQ(FirstNotFinite(GetParam().type, {}), -1);
}

// Every pair of bytes of a block set to NaN and to infinity, of each float format.
TEST_P(FiniteTest, FindsWhatDequantizationMakesOfABlock) {
  const TypeInfo& info = GetParam();
  const Bytes good = testing::RandomBlocks(info.type, 3 * info.block_size, 1, 2);
  int n_bad = 0;
  for (const uint16_t bits : {0x7c00, 0xfc00, 0x7e01, 0x7f80, 0xff80, 0x7fc0, 0x7bff, 0x7f7f}) {
    for (uint32_t at = 0; at + 2 <= info.block_bytes; at += 2) {
      Bytes block(good.begin() + info.block_bytes, good.begin() + 2 * info.block_bytes);
      block[at] = static_cast<uint8_t>(bits);
      block[at + 1] = static_cast<uint8_t>(bits >> 8);
      Bytes blocks = good;
      std::copy(block.begin(), block.end(), blocks.begin() + info.block_bytes);
      const bool is_finite = IsFiniteByValues(info, block);
      n_bad += !is_finite;
      const int64_t expected = is_finite ? -1 : int64_t{info.block_size};
      EXPECT_EQ(FirstNotFinite(info.type, blocks), expected) << at << " " << bits;
    }
  }
  EXPECT_GT(n_bad, 0);
}

INSTANTIATE_TEST_SUITE_P(EachType, FiniteTest, ::testing::ValuesIn(kTensorTypes),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline
