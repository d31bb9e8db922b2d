// What active neurons add, on every device: judged by the values that a file's blocks stand for,
// added in the order of device_ops.h. So the layout of kernels/cuda/neurons.h is judged, too.
#include <numeric>

#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/cuda/neurons_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

// About half of them 0.
std::vector<float> SparseValues(int64_t n, uint32_t seed) {
  std::vector<float> values = random_values(n, seed);
  for (float& value : values) value = std::max(value, 0.0f);
  return values;
}

class DeviceAddNeurons : public DeviceTest {
 protected:
  // Neurons of a random file, on the device and as their values.
  void Make(const NeuronLayout& layout, const std::vector<int32_t>& neurons, int64_t n_cols) {
    RandomNeurons random = MakeNeurons(layout, neurons, n_cols);
    w_ = random.image.layout;
    place_device_neurons(device_->Upload(random.image.bytes), &w_);
    weights_ = std::move(random.weights);
  }

  // rows: of the device's neurons, ascending; empty: all. a [n_tokens, a_stride]. max: above the
  // length of the list, if wanted.
  std::vector<float> Run(const std::vector<int32_t>& rows, const std::vector<float>& a,
                         int64_t a_stride, int64_t n_tokens, int64_t max = 0) {
    RowList list;
    if (!rows.empty()) {
      list.max = std::max<int64_t>(max, std::ssize(rows));
      list.rows = device_->Upload(rows);
      list.n = device_->Upload(std::vector<int32_t>{static_cast<int32_t>(rows.size())});
    }
    const int64_t n = rows.empty() ? w_.n_neurons : list.max;
    float* out = device_->Allocate<float>(n_tokens * w_.n_cols);
    auto* workspace = device_->Allocate<uint8_t>(add_neurons_bytes(n, w_.n_cols, n_tokens));
    device_->Check(ops_.add_neurons(stream_, w_, list, device_->Upload(a), a_stride, n_tokens, out,
                                    workspace));
    return device_->Download(out, n_tokens * w_.n_cols);
  }

  // One token's sums, with the bits that device_ops.h says.
  std::vector<float> Expected(const std::vector<int32_t>& rows, const float* a) const {
    std::vector<float> sums(w_.n_cols, 0.0f);
    for (int64_t col = 0; col < w_.n_cols; ++col) {
      for (int64_t chunk = 0; chunk < std::ssize(rows); chunk += kNeuronChunk) {
        const int64_t end = std::min(chunk + kNeuronChunk, std::ssize(rows));
        float sum = 0;
        for (int64_t i = chunk; i < end; ++i) {
          if (a[i] != 0) sum = std::fma(a[i], weights_[rows[i] * w_.n_cols + col], sum);
        }
        sums[col] = chunk == 0 ? sum : sums[col] + sum;
      }
    }
    return sums;
  }

  ::testing::AssertionResult IsWithinItsBound(const std::vector<int32_t>& rows, const float* a,
                                              const std::vector<float>& sums) const {
    std::vector<double> expected(w_.n_cols), tolerance(w_.n_cols);
    for (int64_t col = 0; col < w_.n_cols; ++col) {
      double magnitudes = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        const double term = double{a[i]} * weights_[rows[i] * w_.n_cols + col];
        expected[col] += term;
        magnitudes += std::abs(term);
      }
      tolerance[col] = static_cast<double>(rows.size() + 2) * kRounding * magnitudes + 1e-40;
    }
    return within(sums, expected, tolerance);
  }

  void ExpectSums(const std::vector<int32_t>& rows, int64_t n_tokens) {
    const int64_t stride = std::ssize(rows) + 5;
    const std::vector<float> a = SparseValues(n_tokens * stride, 2);
    const std::vector<float> sums = Run(rows, a, stride, n_tokens);
    for (int64_t t = 0; t < n_tokens; ++t) {
      const std::vector<float> own(sums.begin() + t * w_.n_cols,
                                   sums.begin() + (t + 1) * w_.n_cols);
      ASSERT_TRUE(same_bits(own, Expected(rows, a.data() + t * stride)))
          << type_info(w_.type)->name << ", token " << t << " of " << n_tokens << ", "
          << rows.size() << " neurons, " << w_.n_cols << " columns";
      ASSERT_TRUE(IsWithinItsBound(rows, a.data() + t * stride, own));
    }
  }

  // The first n of every second neuron that is here.
  std::vector<int32_t> EverySecond(int64_t n) const {
    std::vector<int32_t> rows;
    for (int32_t i = 0; std::ssize(rows) < n && i < w_.n_neurons; i += 2) rows.push_back(i);
    return rows;
  }

  DeviceNeurons w_;
  std::vector<float> weights_;  // [n_neurons, n_cols]
};

TEST_P(DeviceAddNeurons, EveryLayoutAndWidthGivesTheSumsOfTheFile) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    for (const int64_t n_cols : {256, 512, 1280}) {
      for (const int of_7 : {7, 2}) {
        Make(layout, SomeNeurons(of_7), n_cols);
        ExpectSums(EverySecond(100), 1);
        ExpectSums(EverySecond(100), 3);
      }
    }
  }
}

TEST_P(DeviceAddNeurons, WidthsThatAreMultiplesOf32) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    for (const int64_t n_cols : {32, 96, 544}) {
      Make(layout, SomeNeurons(3), n_cols);
      ExpectSums(EverySecond(70), 1);
      ExpectSums(EverySecond(70), 5);
    }
  }
}

TEST_P(DeviceAddNeurons, ListsOfEveryLength) {
  for (const NeuronLayout& layout :
       {NeuronLayout{TensorType::kQ4_0, true}, NeuronLayout{TensorType::kQ6_K, false}}) {
    Make(layout, SomeNeurons(7), 256);
    for (const int64_t n : {1, 2, 7, 8, 9, 63, 64, 65, 128, 129, 256}) {
      ExpectSums(EverySecond(n), 1);
      ExpectSums(EverySecond(n), 4);
    }
  }
}

TEST_P(DeviceAddNeurons, NoListMeansAllNeurons) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    Make(layout, SomeNeurons(2), 256);
    std::vector<int32_t> all(w_.n_neurons);
    std::iota(all.begin(), all.end(), 0);
    const std::vector<float> a = SparseValues(w_.n_neurons, 3);
    EXPECT_TRUE(same_bits(Run({}, a, w_.n_neurons, 1), Expected(all, a.data())));
  }
}

TEST_P(DeviceAddNeurons, TheListMayBeShorterThanItsRoom) {
  Make({TensorType::kQ4_0, false}, SomeNeurons(7), 256);
  const std::vector<int32_t> rows = EverySecond(65);
  const std::vector<float> a = SparseValues(2 * 400, 4);
  EXPECT_TRUE(same_bits(Run(rows, a, 400, 2, 400), Run(rows, a, 400, 2)));
}

TEST_P(DeviceAddNeurons, NothingActiveAddsZeros) {
  Make({TensorType::kQ4_K, false}, SomeNeurons(7), 256);
  const std::vector<float> zeros(2 * 256, 0.0f);
  EXPECT_TRUE(same_bits(Run(EverySecond(100), zeros, 100, 2), zeros));  // a list, factors of 0
  float* out = device_->Allocate<float>(2 * 256);
  const RowList empty = {device_->Upload(std::vector<int32_t>(9, -1)),
                         device_->Upload(std::vector<int32_t>{0}), 9};
  auto* workspace = device_->Allocate<uint8_t>(add_neurons_bytes(9, 256, 2));
  device_->Check(
      ops_.add_neurons(stream_, w_, empty, device_->Upload(zeros), 9, 2, out, workspace));
  EXPECT_TRUE(same_bits(device_->Download(out, 2 * 256), zeros));
  Make({TensorType::kQ4_K, false}, {}, 256);  // no neurons at all
  EXPECT_TRUE(same_bits(Run({}, zeros, 0, 2), zeros));
}

TEST_P(DeviceAddNeurons, AFactorOfZeroIsSkippedWhateverTheWeight) {
  Make({TensorType::kF32, true}, SomeNeurons(7), 256);
  std::vector<float> infinite(kFileNeurons * 256, INFINITY);
  w_.quants = reinterpret_cast<const uint8_t*>(device_->Upload(infinite));
  std::vector<float> a(3 * 8, 0.0f);
  a[8 + 2] = 1.0f;
  a[2 * 8 + 2] = std::nanf("");
  const std::vector<float> sums = Run(EverySecond(8), a, 8, 3);
  EXPECT_EQ(sums[0], 0.0f);
  EXPECT_EQ(sums[256], INFINITY);
  EXPECT_TRUE(std::isnan(sums[2 * 256]));
}

TEST_P(DeviceAddNeurons, ATokensBitsDependOnItAlone) {
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    Make(layout, SomeNeurons(4), 256);
    const std::vector<int32_t> rows = EverySecond(140);
    const int64_t n = std::ssize(rows), n_tokens = 9;
    const std::vector<float> a = SparseValues(n_tokens * n, 5);
    const std::vector<float> together = Run(rows, a, n, n_tokens);
    EXPECT_TRUE(same_bits(Run(rows, a, n, n_tokens), together));
    for (int64_t t = 0; t < n_tokens; ++t) {
      const std::vector<float> alone(a.begin() + t * n, a.begin() + (t + 1) * n);
      EXPECT_TRUE(same_bits(Run(rows, alone, n, 1),
                            {together.begin() + t * 256, together.begin() + (t + 1) * 256}));
    }
  }
}

TEST_P(DeviceAddNeurons, ALayoutTakesTheBytesOfItsIntegersAndScales) {
  EXPECT_EQ(device_neuron_bytes(device_transposed_layout(TensorType::kQ4_0, 16, 256)),
            16 * (128 + 16));
  EXPECT_EQ(device_neuron_bytes(device_transposed_layout(TensorType::kF16, 16, 256)), 16 * 512);
  EXPECT_EQ(device_neuron_bytes(device_neuron_layout(TensorType::kQ6_K, 64, 2, 256)),
            64 * (128 + 64) + 2 * 4 * 256 + 64 * 4);
  EXPECT_EQ(device_neuron_bytes(device_neuron_layout(TensorType::kQ4_0, 1, 1, 32)), 3 * 256);
}

INSTANTIATE_DEVICE_TESTS(DeviceAddNeurons);

}  // namespace
}  // namespace thermocline::kernels::testing
