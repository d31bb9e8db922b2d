// Dequantization against ggml's own values, to the bit (tests/golden/quant_vectors.gguf).
#include "common/gguf/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/gguf/gguf_file.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline {
namespace {

class DequantizeTest : public ::testing::TestWithParam<TypeInfo> {};

std::string Lower(std::string text) {  // all but the K of K-quants, as the file has it
  for (char& c : text) c = c == 'K' ? 'K' : static_cast<char>(std::tolower(c));
  return text;
}

TEST_P(DequantizeTest, EqualsGgmlBitForBit) {
  const auto file = GgufFile::Open(THERMOCLINE_SOURCE_DIR "/tests/golden/quant_vectors.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const bool is_f32 = GetParam().type == TensorType::kF32;  // stands for itself
  const std::string name = is_f32 ? "source" : Lower(GetParam().name);
  const GgufTensor* blocks = (*file)->FindTensor(name);
  const GgufTensor* expected = is_f32 ? blocks : (*file)->FindTensor(name + ".expected");
  ASSERT_TRUE(blocks != nullptr && expected != nullptr) << name;
  ASSERT_EQ(blocks->type, GetParam().type);

  const int64_t n = blocks->dims[0] * blocks->n_rows();
  ASSERT_EQ(n, 16 * 1024);
  std::vector<float> values(n), wanted(n);
  dequantize(blocks->type, (*file)->TensorBytes(*blocks).data(), n, values.data());
  ASSERT_EQ((*file)->TensorBytes(*expected).size(), n * sizeof(float));
  std::memcpy(wanted.data(), (*file)->TensorBytes(*expected).data(), n * sizeof(float));
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(wanted[i]))
        << "value " << i << " is " << values[i] << ", ggml's is " << wanted[i];
  }
}

TEST_P(DequantizeTest, NeedsNoAlignment) {
  const TypeInfo& info = GetParam();
  const int64_t n = 3 * info.block_size;
  const testing::Bytes blocks = testing::RandomBlocks(info.type, n, 1, 1);
  testing::Bytes shifted(1);
  shifted.insert(shifted.end(), blocks.begin(), blocks.end());
  std::vector<float> values(n), from_shifted(n);
  dequantize(info.type, blocks.data(), n, values.data());
  dequantize(info.type, shifted.data() + 1, n, from_shifted.data());
  EXPECT_EQ(values, from_shifted);
}

TEST_P(DequantizeTest, RandomBlocksHaveTheAmplitudeAskedFor) {
  const TypeInfo& info = GetParam();
  const int64_t n = 4096;
  const testing::Bytes blocks = testing::RandomBlocks(info.type, n, 0.5f, 7);
  std::vector<float> values(n);
  dequantize(info.type, blocks.data(), n, values.data());
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  const double rms = std::sqrt(squares / n);
  EXPECT_GT(rms, 0.5 / 8);
  EXPECT_LT(rms, 0.5 * 2);
}

INSTANTIATE_TEST_SUITE_P(EachType, DequantizeTest, ::testing::ValuesIn(kTensorTypes),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Dequantize, ZeroValuesReadNothing) {
  float value = 1;
  dequantize(TensorType::kQ4_K, nullptr, 0, &value);
  EXPECT_EQ(value, 1);
}

}  // namespace
}  // namespace thermocline
