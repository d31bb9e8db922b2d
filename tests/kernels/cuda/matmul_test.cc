// Products on every device, judged by f64 sums over the values that a file's blocks stand for.
#include <algorithm>
#include <cmath>
#include <random>

#include "common/gguf/dequantize.h"
#include "kernels/ops.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline::kernels::testing {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                 TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_K,
                                 TensorType::kQ5_K, TensorType::kQ6_K};

// A file's tensor, its columns [first_col, first_col + n_cols) on the device, and inputs.
struct Product {
  TensorType type;
  int64_t n_rows, file_cols, first_col, n_cols, n_tokens;
};

class Matmul : public DeviceTest {
 protected:
  void Make(const Product& product) {
    shape_ = product;
    const TypeInfo* type = type_info(product.type);
    row_bytes_ = product.file_cols / type->block_size * type->block_bytes;
    file_ = ::thermocline::testing::RandomBlocks(product.type, product.n_rows * product.file_cols,
                                                 0.1f, seed_++);
    DeviceMatrix layout =
        device_layout(product.type, product.n_rows, product.first_col, product.n_cols);
    std::vector<uint8_t> image(device_matrix_bytes(layout));
    for (int64_t row = 0; row < product.n_rows; ++row) {
      pack_device_row(layout, product.first_col, row, file_.data() + row * row_bytes_,
                      image.data());
    }
    matrix_ = layout;
    place_device_matrix(device_->Upload(image), &matrix_);
    MakeInputs();
  }

  void MakeInputs() {
    std::normal_distribution<float> normal;
    x_.resize(shape_.n_tokens * shape_.n_cols);
    for (float& value : x_) value = normal(rng_);
    const int64_t n_blocks = shape_.n_cols / 32;
    std::vector<int8_t> q(x_.size());
    std::vector<float> scale(x_.size() / 32);
    std::vector<int32_t> sum(x_.size() / 32);
    for (int64_t t = 0; t < shape_.n_tokens && is_quantized(); ++t) {
      kernels::ops(Isa::kReference)
          .quantize(x_.data() + t * shape_.n_cols, shape_.n_cols, q.data() + t * shape_.n_cols,
                    scale.data() + t * n_blocks, sum.data() + t * n_blocks);
    }
    if (is_quantized()) {  // what the product sees
      for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(q[i]) * scale[i / 32];
      rows_ = {device_->Upload(q), device_->Upload(scale), device_->Upload(sum), shape_.n_cols};
    } else {
      x_f32_ = device_->Upload(x_);
    }
  }

  bool is_quantized() const { return !type_info(shape_.type)->is_float; }

  std::vector<float> Run(const RowList& list, int64_t first_token, int64_t n_tokens) {
    const int64_t n_out = shape_.n_rows;
    float* out = device_->Allocate<float>(n_tokens * n_out);
    DeviceRows rows = rows_;
    const float* x_f32 = x_f32_;
    if (is_quantized()) {
      rows.q += first_token * rows.stride;
      rows.scale += first_token * rows.stride / 32;
      rows.sum += first_token * rows.stride / 32;
    } else {
      x_f32 += first_token * shape_.n_cols;
    }
    device_->Check(
        ops_.matmul(stream_, matrix_, list, rows, x_f32, shape_.n_cols, n_tokens, out, n_out));
    return device_->Download(out, n_tokens * n_out);
  }

  void ExpectProduct(const std::vector<float>& out, int64_t out_stride, int64_t i, int64_t row) {
    std::vector<float> w(shape_.file_cols);
    dequantize(shape_.type, file_.data() + row * row_bytes_, shape_.file_cols, w.data());
    for (int64_t t = 0; t < shape_.n_tokens; ++t) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < shape_.n_cols; ++k) {
        const double term =
            static_cast<double>(w[shape_.first_col + k]) * x_[t * shape_.n_cols + k];
        sum += term;
        size += std::fabs(term);
      }
      // A float row has a rounding a value; a block has its own and those of scale and minimum.
      const double n = is_quantized() ? static_cast<double>(shape_.n_cols) / 32 * 2 + 40
                                      : static_cast<double>(shape_.n_cols) + 5;
      EXPECT_NEAR(out[t * out_stride + i], sum, n * 0x1p-24 * size + 1e-30)
          << type_info(shape_.type)->name << " row " << row << " token " << t;
    }
  }

  uint32_t seed_ = 1;
  std::mt19937 rng_{1};
  Product shape_;
  int64_t row_bytes_ = 0;
  Bytes file_;
  DeviceMatrix matrix_;
  std::vector<float> x_;
  DeviceRows rows_;
  const float* x_f32_ = nullptr;
};

TEST_P(Matmul, IsTheProductForEveryTypeShapeAndCut) {
  for (const TensorType type : kTypes) {
    for (const Product& product :
         {Product{type, 1, 256, 0, 256, 1}, Product{type, 13, 512, 0, 512, 3},
          Product{type, 9, 1280, 96, 992, 1}, Product{type, 34, 512, 224, 64, 8},
          Product{type, 5, 2560, 0, 2560, 2}}) {
      Make(product);
      const std::vector<float> out = Run({}, 0, product.n_tokens);
      for (int64_t row = 0; row < product.n_rows; ++row) {
        ExpectProduct(out, product.n_rows, row, row);
      }
    }
  }
}

TEST_P(Matmul, OfAListIsThatOfItsRows) {
  for (const TensorType type : kTypes) {
    Make({type, 40, 512, 0, 512, 2});
    const std::vector<float> all = Run({}, 0, 2);
    const std::vector<int32_t> rows = {0, 3, 4, 17, 18, 19, 39};
    RowList list = {device_->Upload(rows), device_->Upload(std::vector<int32_t>{7}), 20};
    const std::vector<float> some = Run(list, 0, 2);
    for (int32_t row = 0; row < 40; ++row) {
      for (int64_t t = 0; t < 2; ++t) {
        if (std::find(rows.begin(), rows.end(), row) != rows.end()) {
          EXPECT_EQ(some[t * 40 + row], all[t * 40 + row]);
        } else {
          EXPECT_TRUE(std::isnan(some[t * 40 + row]));  // nothing is written
        }
      }
    }
    list.n = device_->Upload(std::vector<int32_t>{0});
    EXPECT_TRUE(std::isnan(Run(list, 0, 1)[0]));
  }
}

TEST_P(Matmul, ATokensBitsDoNotDependOnTheOthers) {
  for (const TensorType type : kTypes) {
    Make({type, 6, 768, 0, 768, 23});
    const std::vector<float> together = Run({}, 0, 23);
    for (const int64_t t : {0, 7, 8, 15, 20, 22}) {
      const std::vector<float> alone = Run({}, t, 1);
      for (int64_t row = 0; row < 6; ++row) EXPECT_EQ(alone[row], together[t * 6 + row]);
    }
  }
}

TEST_P(Matmul, TakesTheBytesOfTheFile) {
  for (const TensorType type : kTypes) {
    const DeviceMatrix layout = device_layout(type, 512, 0, 4096);
    const TypeInfo* info = type_info(type);
    EXPECT_EQ(device_matrix_bytes(layout), 512 * 4096 / info->block_size * info->block_bytes);
  }
}

INSTANTIATE_DEVICE_TESTS(Matmul);

}  // namespace
}  // namespace thermocline::kernels::testing
