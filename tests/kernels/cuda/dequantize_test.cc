// Weights and activations in f16 on every device, judged by what the file's blocks stand for, to
// the bit.
#include "common/gguf/dequantize.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/cuda/neurons_testing.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels::testing {
namespace {

uint16_t ExpectedHalf(float x) {
  if (std::isnan(x)) return 0x7fff;
  return f32_to_f16(std::clamp(x, -65504.0f, 65504.0f));
}

class DeviceDequantize : public DeviceTest {
 protected:
  // Rows [begin, end) of columns [first_col, first_col + n_cols) of a file's.
  void ExpectMatrix(const FileRows& file, int64_t file_cols, int64_t first_col, int64_t n_cols,
                    int64_t begin, int64_t end) {
    DeviceMatrix matrix = device_layout(file.type, file.n_rows, first_col, n_cols);
    std::vector<uint8_t> image(device_matrix_bytes(matrix));
    std::vector<float> values(file.n_rows * file_cols);
    for (int64_t row = 0; row < file.n_rows; ++row) {
      pack_device_row(matrix, first_col, row, file.row(row), image.data());
      dequantize(file.type, file.row(row), file_cols, values.data() + row * file_cols);
    }
    place_device_matrix(device_->Upload(image), &matrix);
    const int64_t n = (end - begin) * n_cols;
    auto* out = device_->Allocate<uint16_t>(n + kBehind);
    device_->Check(ops_.dequantize(stream_, matrix, begin, end, out));
    const std::vector<uint16_t> halves = device_->Download(out, n + kBehind);
    for (int64_t i = 0; i < n; ++i) {
      const float value = values[(begin + i / n_cols) * file_cols + first_col + i % n_cols];
      ASSERT_EQ(halves[i], ExpectedHalf(value))
          << type_info(file.type)->name << ", value " << i << " of rows " << begin << " to " << end;
    }
    ExpectUntouched(halves, n);
  }

  void ExpectUntouched(const std::vector<uint16_t>& halves, int64_t from) {
    for (int64_t i = from; i < std::ssize(halves); ++i) ASSERT_EQ(halves[i], 0xffff) << i;
  }

  static constexpr int64_t kBehind = 64;  // values behind the result
};

TEST_P(DeviceDequantize, EveryTypeShapeAndCutHasTheValuesOfTheFile) {
  for (const TensorType type : all_types()) {
    ExpectMatrix(random_rows(type, 1, 256, 1), 256, 0, 256, 0, 1);
    ExpectMatrix(random_rows(type, 13, 512, 2), 512, 0, 512, 0, 13);
    ExpectMatrix(random_rows(type, 9, 1280, 3), 1280, 96, 992, 2, 9);
    ExpectMatrix(random_rows(type, 7, 512, 4), 512, 224, 32, 1, 6);
    ExpectMatrix(random_rows(type, 3, 4352, 5), 4352, 0, 4352, 1, 2);
  }
}

TEST_P(DeviceDequantize, NeuronsHaveTheValuesOfTheFile) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    for (const int64_t n_cols : {256, 32, 1280}) {
      const RandomNeurons random = MakeNeurons(layout, SomeNeurons(3), n_cols);
      DeviceNeurons neurons = random.image.layout;
      place_device_neurons(device_->Upload(random.image.bytes), &neurons);
      const int64_t n_neurons = neurons.n_neurons;
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, n_neurons},
                                       {17, 18},
                                       {5, 41},
                                       {n_neurons - 9, n_neurons}}) {
        const int64_t n = (end - begin) * n_cols;
        auto* out = device_->Allocate<uint16_t>(n + kBehind);
        device_->Check(ops_.dequantize_neurons(stream_, neurons, begin, end, out));
        const std::vector<uint16_t> halves = device_->Download(out, n + kBehind);
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(halves[i], ExpectedHalf(random.weights[begin * n_cols + i]))
              << type_info(layout.type)->name << ", value " << i << " of neurons " << begin
              << " to " << end << " of " << n_cols << " columns";
        }
        ExpectUntouched(halves, n);
      }
    }
  }
}

TEST_P(DeviceDequantize, WhatF16CannotHoldBecomesItsLargest) {
  const std::vector<float> values = {
      65504.0f, 65519.9f, 65520.0f, -1e30f,         INFINITY,  -INFINITY, NAN,  1e-8f,
      3.1e-8f,  0x1p-14f, -0.0f,    1.00048828125f, 1.001464f, -65520.0f, 2.0f, 0.0f};
  std::vector<uint16_t> expected(values.size());
  std::transform(values.begin(), values.end(), expected.begin(), ExpectedHalf);
  EXPECT_EQ(expected[4], 0x7bff);
  const int64_t n = std::ssize(values);
  const float* x = device_->Upload(values);
  auto* out = device_->Allocate<uint16_t>(n);
  device_->Check(ops_.to_f16(stream_, x, n, 1, n, out, n));
  EXPECT_EQ(device_->Download(out, n), expected);
  DeviceMatrix matrix = device_layout(TensorType::kF32, 2, 0, n / 2);
  matrix.quants = reinterpret_cast<const uint8_t*>(x);
  out = device_->Allocate<uint16_t>(n);
  device_->Check(ops_.dequantize(stream_, matrix, 0, 2, out));
  EXPECT_EQ(device_->Download(out, n), expected);
}

TEST_P(DeviceDequantize, ActivationsOfEveryWidthEndInZeros) {
  for (const int64_t n : {1, 2, 3, 4, 5, 511, 512, 513, 1030}) {
    const int64_t n_tokens = 3, x_stride = (n + 3) / 4 * 4 + 4, out_stride = x_stride + 8;
    const std::vector<float> x = random_values(n_tokens * x_stride, 1);
    auto* out = device_->Allocate<uint16_t>(n_tokens * out_stride);
    device_->Check(
        ops_.to_f16(stream_, device_->Upload(x), x_stride, n_tokens, n, out, out_stride));
    const std::vector<uint16_t> halves = device_->Download(out, n_tokens * out_stride);
    for (int64_t i = 0; i < n_tokens * out_stride; ++i) {
      const int64_t token = i / out_stride, col = i % out_stride;
      const uint16_t expected = col < n                 ? ExpectedHalf(x[token * x_stride + col])
                                : col < (n + 3) / 4 * 4 ? 0
                                                        : 0xffff;
      ASSERT_EQ(halves[i], expected) << "column " << col << " of " << n;
    }
  }
}

INSTANTIATE_DEVICE_TESTS(DeviceDequantize);

}  // namespace
}  // namespace thermocline::kernels::testing
