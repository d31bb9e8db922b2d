// Products of many tokens on every device, judged by f64 sums over f16 weights and activations:
// what those are, tests of kernels/cuda say.
#include "gpu_worker/device_product.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/cuda/neurons_testing.h"

namespace thermocline {
namespace {

using kernels::DeviceMatrix;
using kernels::DeviceNeurons;
using kernels::FileRows;
using kernels::random_rows;
using kernels::random_values;
using kernels::testing::AllNeuronLayouts;
using kernels::testing::MakeNeurons;
using kernels::testing::NeuronLayout;
using kernels::testing::RandomNeurons;
using kernels::testing::SomeNeurons;

constexpr int64_t kFloatBytes = sizeof(float);

std::vector<std::string> Names() {
  std::vector<std::string> names = {"emulated"};
  if (OpenDevice("cuda:0").ok()) names.push_back("cuda:0");
  return names;
}

std::vector<uint16_t> Halves(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  std::transform(values.begin(), values.end(), halves.begin(), f32_to_f16);
  return halves;
}

class DeviceProductTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto device = OpenDevice(GetParam());
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  uint8_t* Allocate(int64_t n_bytes) {
    auto memory = device_->Allocate(std::max<int64_t>(n_bytes, 1));
    EXPECT_TRUE(memory.ok()) << memory.status();
    return *memory;
  }
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    const auto n_bytes = static_cast<int64_t>(values.size() * sizeof(T));
    auto* memory = reinterpret_cast<T*>(Allocate(n_bytes));
    EXPECT_TRUE(device_->Upload(memory, values.data(), n_bytes).ok());
    EXPECT_TRUE(device_->Synchronize().ok());
    return memory;
  }
  // NaNs.
  float* Unwritten(int64_t n) { return Upload(std::vector<float>(n, NAN)); }
  std::vector<float> Download(const float* memory, int64_t n) {
    std::vector<float> values(n);
    EXPECT_TRUE(device_->Download(values.data(), memory, n * kFloatBytes).ok());
    const absl::Status status = device_->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }
  DeviceProduct MakeProduct(int64_t n_tokens, int64_t width, int64_t tile_bytes) {
    const DeviceProduct::Options options = {n_tokens, width, tile_bytes};
    return DeviceProduct(device_.get(), options, Allocate(DeviceProduct::WorkspaceBytes(options)));
  }

  std::unique_ptr<Device> device_;
};

// out [n_tokens, out_stride] is x [n_tokens, x_stride] times weights [n, k] in f16. Products of two
// halves are exact in f32, each of k sums may lose 2^-23: tensor cores cut off, where others round.
void ExpectProduct(const std::vector<float>& out, int64_t out_stride, const std::vector<float>& x,
                   int64_t x_stride, const std::vector<float>& weights, int64_t n, int64_t k,
                   const std::vector<float>& start = {}) {
  const std::vector<uint16_t> x_halves = Halves(x), halves = Halves(weights);
  const int64_t n_tokens = std::ssize(x) / x_stride;
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (int64_t i = 0; i < out_stride; ++i) {
      const float actual = out[t * out_stride + i];
      if (i >= n) {
        ASSERT_TRUE(std::isnan(actual)) << "written beyond the rows: " << i;
        continue;
      }
      double sum = start.empty() ? 0 : start[t * out_stride + i], size = std::fabs(sum);
      for (int64_t j = 0; j < k; ++j) {
        const double term =
            double{f16_to_f32(x_halves[t * x_stride + j])} * f16_to_f32(halves[i * k + j]);
        sum += term;
        size += std::fabs(term);
      }
      ASSERT_NEAR(actual, sum, static_cast<double>(k + 1) * 0x1p-23 * size)
          << "token " << t << " row " << i << " of " << n << " by " << k;
    }
  }
}

struct Shape {
  int64_t n_rows, n_cols, n_tokens;
};
constexpr Shape kShapes[] = {{1, 256, 1}, {37, 512, 5}, {300, 256, 53}, {129, 1280, 3}};
// Of one row, of seven (of a row of 256), of 200, of all.
constexpr int64_t kTiles[] = {1, 7 * 512, 200 * 512, kGemmTileBytes};

TEST_P(DeviceProductTest, IsTheProductForEveryTypeShapeAndTile) {
  for (const TensorType type : kernels::all_types()) {
    for (const Shape& shape : kShapes) {
      const FileRows file = random_rows(type, shape.n_rows, shape.n_cols, 1);
      DeviceMatrix matrix = kernels::device_layout(type, shape.n_rows, 0, shape.n_cols);
      std::vector<uint8_t> image(kernels::device_matrix_bytes(matrix));
      for (int64_t row = 0; row < shape.n_rows; ++row) {
        kernels::pack_device_row(matrix, 0, row, file.row(row), image.data());
      }
      kernels::place_device_matrix(Upload(image), &matrix);
      std::vector<float> weights(shape.n_rows * shape.n_cols);
      dequantize(type, file.bytes.data(), std::ssize(weights), weights.data());
      const int64_t x_stride = shape.n_cols + 4, out_stride = shape.n_rows + 3;
      const std::vector<float> x = random_values(shape.n_tokens * x_stride, 2);
      const float* device_x = Upload(x);
      for (const int64_t tile_bytes : kTiles) {
        DeviceProduct product = MakeProduct(shape.n_tokens, shape.n_cols, tile_bytes);
        float* out = Unwritten(shape.n_tokens * out_stride);
        ASSERT_TRUE(product.SetInput(device_x, x_stride, shape.n_cols, shape.n_tokens).ok());
        const absl::Status status = product.Multiply(matrix, out, out_stride);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_NO_FATAL_FAILURE(ExpectProduct(Download(out, shape.n_tokens * out_stride),
                                              out_stride, x, x_stride, weights, shape.n_rows,
                                              shape.n_cols))
            << type_info(type)->name << ", tiles of " << tile_bytes << " bytes";
      }
    }
  }
}

TEST_P(DeviceProductTest, NeuronsAddUpOverTilesOfAnySize) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    for (const int of_7 : {3, 7}) {
      constexpr int64_t kColumns = 256, kTokens = 6;
      const RandomNeurons random = MakeNeurons(layout, SomeNeurons(of_7), kColumns);
      DeviceNeurons down = random.image.layout;
      kernels::place_device_neurons(Upload(random.image.bytes), &down);
      const int64_t n = down.n_neurons, stride = (n + 3) / 4 * 4 + 4;
      std::vector<float> weights(n * kColumns);  // [n_cols, n_neurons]
      for (int64_t i = 0; i < std::ssize(weights); ++i) {
        weights[i] = random.weights[i % n * kColumns + i / n];
      }
      const std::vector<float> a = random_values(kTokens * stride, 3);
      const float* device_a = Upload(a);
      for (const int64_t tile_bytes : kTiles) {
        DeviceProduct product = MakeProduct(kTokens, std::max(n, kColumns), tile_bytes);
        float* out = Unwritten(kTokens * kColumns);
        ASSERT_TRUE(product.SetInput(device_a, stride, n, kTokens).ok());
        const absl::Status status = product.AddNeurons(down, out);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_NO_FATAL_FAILURE(ExpectProduct(Download(out, kTokens * kColumns), kColumns, a,
                                              stride, weights, kColumns, n))
            << type_info(layout.type)->name << ", " << n << " neurons, tiles of " << tile_bytes
            << " bytes";
      }
    }
  }
}

TEST_P(DeviceProductTest, OneInputServesManyMatricesAndNoTokensNone) {
  const int64_t n = 64;
  DeviceProduct product = MakeProduct(3, n, 1);
  const std::vector<float> x = random_values(2 * n, 4), weights = random_values(5 * n, 5);
  DeviceMatrix matrix = kernels::device_layout(TensorType::kF32, 5, 0, n);
  matrix.quants = reinterpret_cast<const uint8_t*>(Upload(weights));
  ASSERT_TRUE(product.SetInput(Upload(x), n, n, 2).ok());
  float* first = Unwritten(2 * 5);
  float* second = Unwritten(2 * 5);
  ASSERT_TRUE(product.Multiply(matrix, first, 5).ok());
  ASSERT_TRUE(product.Multiply(matrix, second, 5).ok());
  ExpectProduct(Download(first, 10), 5, x, n, weights, 5, n);
  EXPECT_EQ(Download(first, 10), Download(second, 10));
  ASSERT_TRUE(product.SetInput(nullptr, n, n, 0).ok());
  EXPECT_TRUE(product.Multiply(matrix, nullptr, 5).ok());
}

TEST_P(DeviceProductTest, NoNeuronsAddZeros) {
  DeviceProduct product = MakeProduct(2, 32, 1);
  const DeviceNeurons down = kernels::device_neuron_layout(TensorType::kQ4_K, 0, 0, 32);
  float* out = Unwritten(2 * 32);
  ASSERT_TRUE(product.SetInput(nullptr, 4, 0, 2).ok());
  ASSERT_TRUE(product.AddNeurons(down, out).ok());
  EXPECT_EQ(Download(out, 64), std::vector<float>(64, 0.0f));
}

TEST_P(DeviceProductTest, GemmOfAnySizeReplacesOrAdds) {
  uint8_t* workspace = Allocate(kGemmWorkspaceBytes);
  for (const int64_t n : {1, 15, 16, 33}) {
    for (const int64_t k : {1, 7, 255, 256, 520}) {
      for (const int64_t n_tokens : {1, 4, 9}) {
        for (const bool by_neurons : {false, true}) {
          for (const bool adds : {false, true}) {
            const int64_t a_stride = k + 3, c_stride = n + 2;
            const std::vector<float> a = random_values(n_tokens * a_stride, 6);
            const std::vector<float> b = random_values(n * k, 7);  // [n, k]
            std::vector<float> stored = b;
            for (int64_t i = 0; i < n * k && by_neurons; ++i) stored[i] = b[i % n * k + i / n];
            std::vector<float> c = random_values(n_tokens * c_stride, 8);
            for (int64_t i = 0; i < std::ssize(c); ++i) {
              if (i % c_stride >= n || !adds) c[i] = NAN;
            }
            float* device_c = Upload(c);
            const absl::Status status =
                device_->Gemm({.n_tokens = n_tokens,
                               .n = n,
                               .k = k,
                               .a = Upload(Halves(a)),
                               .a_stride = a_stride,
                               .b = Upload(Halves(stored)),
                               .weights = by_neurons ? GemmWeights::kNeurons : GemmWeights::kRows,
                               .c = device_c,
                               .c_stride = c_stride,
                               .adds = adds,
                               .workspace = workspace});
            ASSERT_TRUE(status.ok()) << status;
            ASSERT_NO_FATAL_FAILURE(ExpectProduct(Download(device_c, std::ssize(c)), c_stride, a,
                                                  a_stride, b, n, k,
                                                  adds ? c : std::vector<float>()))
                << (by_neurons ? "by neurons" : "by rows") << (adds ? ", adds" : "");
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceProductTest, ::testing::ValuesIn(Names()),
                         [](const auto& info) {
                           return info.param == "emulated" ? "emulated" : "cuda";
                         });

}  // namespace
}  // namespace thermocline
