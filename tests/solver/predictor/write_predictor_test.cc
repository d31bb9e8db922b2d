// What is written is what the workers' reader gets back, to the bit.
#include "solver/predictor/write_predictor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/gguf/gguf_file.h"
#include "common/model/predictor.h"
#include "tests/solver/predictor/synthetic_layer.h"

namespace thermocline {
namespace {

using testing::RandomMatrix;

TrainedLayer MakeLayer(TensorType type, int64_t rank, uint64_t seed) {
  TrainedLayer layer;
  layer.fc1 = QuantizeRows(RandomMatrix(rank, 64, seed).view(), type).value();
  layer.fc2 = QuantizeRows(RandomMatrix(96, rank, seed + 1).view(), type).value();
  layer.bias = RandomMatrix(1, 96, seed + 2).values;
  layer.selection.threshold = static_cast<float>(seed) / 8;
  return layer;
}

std::vector<uint8_t> BytesOf(const GgufFile& file, const GgufTensor* tensor) {
  const absl::Span<const uint8_t> bytes = file.TensorBytes(*tensor);
  return {bytes.begin(), bytes.end()};
}

TEST(WritePredictorTest, ReadsBackAsItWas) {
  const std::string path = std::filesystem::path(::testing::TempDir()) / "predictor.gguf";
  const std::vector<TrainedLayer> layers = {MakeLayer(TensorType::kQ8_0, 32, 1),
                                            MakeLayer(TensorType::kQ4_0, 64, 2),
                                            MakeLayer(TensorType::kF16, 96, 3)};
  ASSERT_TRUE(WritePredictor(layers, "hash", path).ok());
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ModelConfig config;
  config.n_layers = 3;
  config.d_model = 64;
  config.d_ff = 96;
  const absl::StatusOr<Predictor> predictor = ReadPredictor(**file, config, "hash");
  ASSERT_TRUE(predictor.ok()) << predictor.status();
  EXPECT_FALSE(predictor->reads_residual);
  EXPECT_FALSE(predictor->has_relu);
  for (size_t i = 0; i < layers.size(); ++i) {
    const PredictorLayer& layer = predictor->layers[i];
    EXPECT_EQ(layer.rank, layers[i].fc1.n_rows);
    EXPECT_EQ(layer.threshold, layers[i].selection.threshold);
    EXPECT_EQ(layer.fc1->type, layers[i].fc1.type);
    EXPECT_EQ(BytesOf(**file, layer.fc1), layers[i].fc1.bytes);
    EXPECT_EQ(BytesOf(**file, layer.fc2), layers[i].fc2.bytes);
    std::vector<float> bias(96);
    std::memcpy(bias.data(), (*file)->TensorBytes(*layer.bias).data(), 96 * sizeof(float));
    EXPECT_EQ(bias, layers[i].bias);
  }
  std::filesystem::remove(path);
}

TEST(WritePredictorTest, FolderThatIsMissingIsNamed) {
  const std::string path = std::filesystem::path(::testing::TempDir()) / "no" / "predictor.gguf";
  const absl::Status status = WritePredictor({MakeLayer(TensorType::kQ8_0, 32, 1)}, "h", path);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("predictor.gguf"), std::string::npos);
}

// The largest error of a value in units of what its type can tell apart there.
double WorstError(const Matrix& m, TensorType type, double steps) {
  const Matrix back = QuantizeRows(m.view(), type)->Dequantized();
  double worst = 0;
  for (size_t block = 0; block < m.values.size(); block += 32) {
    double largest = 0;
    for (size_t i = block; i < block + 32; ++i) {
      largest = std::max(largest, std::abs(double{m.values[i]}));
    }
    for (size_t i = block; i < block + 32; ++i) {
      worst = std::max(worst, std::abs(m.values[i] - back.values[i]) / (largest / steps));
    }
  }
  return worst;
}

TEST(QuantizeRowsTest, ErrorsAreHalfAStep) {
  const Matrix m = RandomMatrix(50, 128, 1);
  // The scale's own rounding to f16 (2^-11) counts 127 times at the end of the range, 8 in Q4_0.
  EXPECT_LT(WorstError(m, TensorType::kQ8_0, 127), 0.5 + 127 * 0x1p-11);
  // Q4_0 has 8 steps to the side of the largest value and 7 to the other.
  EXPECT_LT(WorstError(m, TensorType::kQ4_0, 8), 1.0 + 8 * 0x1p-11);
  EXPECT_LT(WorstError(m, TensorType::kF16, 1), 0x1p-11);
}

TEST(QuantizeRowsTest, LargestValueOfEitherSignIsExactInQ4_0) {
  for (const float largest : {-4.0f, 4.0f}) {
    Matrix m(1, 32);
    m.values[3] = largest;
    m.values[17] = -largest / 2;
    EXPECT_EQ(QuantizeRows(m.view(), TensorType::kQ4_0)->Dequantized().values, m.values);
  }
}

TEST(QuantizeRowsTest, BlockOfZerosStaysZero) {
  const Matrix zeros(2, 32);
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kF16}) {
    EXPECT_EQ(QuantizeRows(zeros.view(), type)->Dequantized().values, zeros.values);
  }
}

TEST(QuantizeRowsTest, OtherTypesAndPartialBlocksAreRefused) {
  EXPECT_EQ(QuantizeRows(Matrix(1, 256).view(), TensorType::kQ6_K).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(QuantizeRows(Matrix(1, 33).view(), TensorType::kQ8_0).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PredictorTypeTest, IsAsFineAsTheModel) {
  EXPECT_EQ(PredictorType(TensorType::kQ8_0), TensorType::kQ8_0);
  EXPECT_EQ(PredictorType(TensorType::kQ6_K), TensorType::kQ8_0);
  EXPECT_EQ(PredictorType(TensorType::kQ4_K), TensorType::kQ4_0);
  EXPECT_EQ(PredictorType(TensorType::kBF16), TensorType::kF16);
}

}  // namespace
}  // namespace thermocline
