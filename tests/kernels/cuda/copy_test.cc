// Rows copied from one stride to another: what lies between them stays.
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels::testing {
namespace {

class DeviceCopy : public DeviceTest {};

TEST_P(DeviceCopy, RowsAreCopiedAndNothingElse) {
  const struct {
    int64_t n_tokens, n, x_stride, out_stride;
  } kCases[] = {{1, 4, 4, 4},        {3, 4, 8, 12},         {2, 508, 508, 512}, {5, 512, 516, 512},
                {2, 516, 520, 1040}, {1, 4096, 4096, 4096}, {0, 8, 8, 8},       {3, 0, 8, 8}};
  for (const auto& c : kCases) {
    const std::vector<float> x = random_values(c.n_tokens * c.x_stride, 1);
    const std::vector<float> before = random_values(c.n_tokens * c.out_stride, 2);
    std::vector<float> expected = before;
    for (int64_t t = 0; t < c.n_tokens; ++t) {
      std::copy_n(x.begin() + t * c.x_stride, c.n, expected.begin() + t * c.out_stride);
    }
    float* out = device_->Upload(before);
    device_->Check(
        ops_.copy(stream_, device_->Upload(x), c.x_stride, c.n_tokens, c.n, out, c.out_stride));
    EXPECT_TRUE(same_bits(device_->Download(out, std::ssize(before)), expected))
        << c.n_tokens << " of " << c.n;
  }
}

TEST_P(DeviceCopy, EveryBitIsKept) {
  const std::vector<float> x = {std::nanf("7"), -INFINITY, -0.0f, 0x1p-149f};
  float* out = device_->Allocate<float>(4);
  device_->Check(ops_.copy(stream_, device_->Upload(x), 4, 1, 4, out, 4));
  const std::vector<float> actual = device_->Download(out, 4);
  EXPECT_EQ(std::memcmp(actual.data(), x.data(), 16), 0);
}

INSTANTIATE_DEVICE_TESTS(DeviceCopy);

}  // namespace
}  // namespace thermocline::kernels::testing
