// Addition and conversion to f16, every level.
#include <bit>

#include "common/gguf/half.h"
#include "tests/kernels/kernel_testing.h"

namespace thermocline::kernels {
namespace {

class ElementwiseTest : public testing::TestWithParam<Isa> {
 protected:
  std::vector<uint16_t> to_f16(const std::vector<float>& x) {
    AtPageEnd<float> x_at(x);
    AtPageEnd<uint16_t> out(std::ssize(x));
    ops(GetParam()).f32_to_f16(x_at.data(), std::ssize(x), out.data());
    return out.values();
  }
};

TEST_P(ElementwiseTest, AddsEveryLength) {
  for (const int64_t n : lengths()) {
    const std::vector<float> a = random_values(n, 1), b = random_values(n, 2);
    std::vector<float> expected(n);
    for (int64_t i = 0; i < n; ++i) expected[i] = a[i] + b[i];
    AtPageEnd<float> a_at(a), b_at(b), out(n);
    ops(GetParam()).add(a_at.data(), b_at.data(), n, out.data());
    EXPECT_TRUE(same_bits(out.values(), expected)) << n;
    ops(GetParam()).add(a_at.data(), b_at.data(), n, a_at.data());
    EXPECT_TRUE(same_bits(a_at.values(), expected)) << n << " in place";
  }
}

TEST_P(ElementwiseTest, ConvertsEveryLength) {
  for (const int64_t n : lengths()) {
    const std::vector<float> x = random_values(n, 3);
    std::vector<uint16_t> expected(n);
    for (int64_t i = 0; i < n; ++i) expected[i] = thermocline::f32_to_f16(x[i]);
    EXPECT_EQ(to_f16(x), expected) << n;
  }
}

TEST_P(ElementwiseTest, WritesNothingOutsideItsLength) {
  for (int64_t n = 0; n < 32; ++n) {
    const std::vector<float> x = random_values(n, 4);
    std::vector<uint16_t> out(n + 2, 0xabcd);
    ops(GetParam()).f32_to_f16(x.data(), n, out.data() + 1);
    EXPECT_EQ(out.front(), 0xabcd);
    EXPECT_EQ(out.back(), 0xabcd);
  }
}

TEST_P(ElementwiseTest, EveryHalfConvertsToItself) {
  std::vector<float> x;
  std::vector<uint16_t> halves;
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7fff) > 0x7c00) continue;  // NaN
    halves.push_back(static_cast<uint16_t>(h));
    x.push_back(f16_to_f32(static_cast<uint16_t>(h)));
  }
  EXPECT_EQ(to_f16(x), halves);
}

TEST_P(ElementwiseTest, MidpointsBetweenHalvesGoToTheEvenOne) {
  std::vector<float> x;
  std::vector<uint16_t> halves;
  for (uint16_t h = 0; h < 0x7bff; ++h) {
    const float middle = (f16_to_f32(h) + f16_to_f32(h + 1)) / 2;  // exact
    const uint16_t even = h % 2 == 0 ? h : h + 1;
    x.insert(x.end(), {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)});
    halves.insert(halves.end(), {even, h, static_cast<uint16_t>(h + 1)});
  }
  x.insert(x.end(), {65519.996f, 65520.0f});
  halves.insert(halves.end(), {0x7bff, 0x7c00});
  EXPECT_EQ(to_f16(x), halves);
}

// Every 509th pattern of an f32 (a prime, so low bits vary), NaN payloads included.
TEST_P(ElementwiseTest, BitPatternsConvertAsHalfHeaderSays) {
  constexpr int64_t kPart = 1 << 16;
  std::vector<float> x(kPart);
  std::vector<uint16_t> out(kPart);
  int64_t wrong = 0;
  for (uint64_t bits = 0; bits < 0x100000000;) {
    int64_t n = 0;
    for (; n < kPart && bits < 0x100000000; ++n, bits += 509) {
      x[n] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    }
    ops(GetParam()).f32_to_f16(x.data(), n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      if (out[i] != thermocline::f32_to_f16(x[i]) && ++wrong == 1) {
        ADD_FAILURE() << std::hex << std::bit_cast<uint32_t>(x[i]) << " became " << out[i];
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Levels, ElementwiseTest, testing::ValuesIn(levels_here()), level_name);

}  // namespace
}  // namespace thermocline::kernels
