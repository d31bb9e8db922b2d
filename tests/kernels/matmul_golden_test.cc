// Products of the vectors that ggml quantized (tests/golden/README.md): packed weights times x at
// every level, against ggml's own dot products in double, within a bound that is computed here.
#include <gtest/gtest.h>

#include "common/gguf/gguf_file.h"
#include "kernels/reference/packed_block.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kRows = 16, kCols = 1024, kBlocks = kCols / 32;

struct Golden {
  const char* name;  // in the file
  TensorType type;
};

class MatmulGoldenTest : public testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    auto file = GgufFile::Open(THERMOCLINE_SOURCE_DIR "/tests/golden/quant_vectors.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    const std::string name = GetParam().name;
    const GgufTensor* tensor = file_->FindTensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    ASSERT_EQ(tensor->type, GetParam().type);
    const absl::Span<const uint8_t> bytes = file_->TensorBytes(*tensor);
    packed_ = pack({tensor->type,
                    kRows,
                    static_cast<int64_t>(tensor->row_bytes()),
                    {bytes.begin(), bytes.end()}},
                   0, kCols);
    x_ = Floats("x");
    const std::vector<float> dot = Floats(name + ".dot");
    dot_.assign(dot.begin(), dot.end());
    ASSERT_EQ(x_.size(), size_t{kCols});
    ASSERT_EQ(dot_.size(), size_t{kRows});
  }

  std::vector<float> Floats(const std::string& name) {
    const GgufTensor* tensor = file_->FindTensor(name);
    if (tensor == nullptr) return {};
    const absl::Span<const uint8_t> bytes = file_->TensorBytes(*tensor);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  // What |computed - dot| may be for each row. Given `quantized`, an activation is at most half a
  // step (its block's scale) off, and 127 roundings of a quotient; beyond that n_roundings
  // roundings of at most the sum of the products' magnitudes, where a weight counts as its two
  // parts, and one each of a dequantized weight, of the product of scales, and of the f32 in the
  // file.
  std::vector<double> Bounds(const QuantizedRows* quantized, int64_t n_roundings) {
    std::vector<double> bounds(kRows);
    for (int64_t b = 0; b < kBlocks; ++b) {
      float values[32][16];
      unpack_block(packed_.matrix, 0, b, values);
      const double half_step = quantized ? (0.5 + 127 * 2 * kRounding) * quantized->scale[b] : 0;
      for (int row = 0; row < kRows; ++row) {
        const double min = type_info(GetParam().type)->is_float
                               ? 0
                               : read_row_block(packed_.matrix, 0, b, row).min;
        for (int k = 0; k < 32; ++k) {
          const double weight = std::abs(values[k][row]);
          const double activation = std::abs(x_[b * 32 + k]) + half_step;
          const double magnitude = (weight + 2 * std::abs(min)) * activation;
          bounds[row] += half_step * weight;
          bounds[row] += static_cast<double>(n_roundings + 3) * kRounding * 1.001 * magnitude;
        }
      }
    }
    // A row of zeros must give 0; `within` divides by the bound.
    for (double& bound : bounds) bound = std::max(bound, std::numeric_limits<double>::min());
    return bounds;
  }

  std::unique_ptr<GgufFile> file_;
  Packed packed_;
  std::vector<float> x_;     // [kCols]
  std::vector<double> dot_;  // [kRows]
};

TEST_P(MatmulGoldenTest, Int8ActivationsAreWithinHalfAStepOfEach) {
  if (type_info(GetParam().type)->is_float) GTEST_SKIP() << "float weights take f32 activations";
  Quantized quantized(x_, 1, kCols);
  const QuantizedRows rows = quantized.rows();
  for (const Isa isa : levels_here()) {
    std::vector<float> out(kRows);
    ops(isa).matmul_int8(packed_.matrix, 0, 1, rows, 1, out.data(), kRows);
    EXPECT_TRUE(within(out, dot_, Bounds(&rows, 2 * kBlocks))) << ops(isa).name;
  }
}

TEST_P(MatmulGoldenTest, F32ActivationsAreWithinTheirRoundings) {
  for (const Isa isa : levels_here()) {
    std::vector<float> out(kRows);
    ops(isa).matmul_f32(packed_.matrix, 0, 1, x_.data(), kCols, 1, out.data(), kRows);
    EXPECT_TRUE(within(out, dot_, Bounds(nullptr, kCols))) << ops(isa).name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, MatmulGoldenTest,
    testing::Values(Golden{"f16", TensorType::kF16}, Golden{"bf16", TensorType::kBF16},
                    Golden{"q4_0", TensorType::kQ4_0}, Golden{"q8_0", TensorType::kQ8_0},
                    Golden{"q4_K", TensorType::kQ4_K}, Golden{"q5_K", TensorType::kQ5_K},
                    Golden{"q6_K", TensorType::kQ6_K}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline::kernels
