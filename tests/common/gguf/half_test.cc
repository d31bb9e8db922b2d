// f16 and bf16 conversions against what their formats say, computed in double.
#include "common/gguf/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace thermocline {
namespace {

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

// The value of a finite half by its definition.
double HalfValue(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

constexpr uint16_t kInfinity = 0x7c00;

// Non-negative finite f32 to f16 by its definition: the nearest, ties to the even one; `below` is
// the largest half that is not above the value. Past the largest half, 65536 stands for infinity.
uint16_t Nearest(float value, uint16_t below) {
  const double low = HalfValue(below);
  const double high = below + 1 == kInfinity ? 65536 : HalfValue(below + 1);
  const double middle = (low + high) / 2;  // exact in double
  if (value != middle) return value < middle ? below : below + 1;
  return below % 2 == 0 ? below : below + 1;
}

TEST(Half, EveryHalfHasTheValueThatItsBitsSay) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float value = f16_to_f32(static_cast<uint16_t>(h));
    if ((h & 0x7fff) < kInfinity) {
      ASSERT_EQ(static_cast<double>(value), HalfValue(static_cast<uint16_t>(h))) << h;
      ASSERT_EQ(std::signbit(value), (h & 0x8000) != 0) << h;
    } else if ((h & 0x7fff) == kInfinity) {
      ASSERT_TRUE(std::isinf(value) && std::signbit(value) == ((h & 0x8000) != 0)) << h;
    } else {
      ASSERT_EQ(Bits(value), ((h & 0x8000) << 16) | 0x7f800000u | ((h & 0x3ff) << 13)) << h;
    }
  }
}

TEST(Half, EveryHalfSurvivesTheWayThroughF32) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const bool is_nan = (h & 0x7fff) > kInfinity;
    const uint32_t expected = is_nan ? h | 0x200 : h;  // NaN comes back quiet
    ASSERT_EQ(f32_to_f16(f16_to_f32(static_cast<uint16_t>(h))), expected) << h;
  }
}

TEST(Half, RoundsToNearestEvenAroundEveryBoundary) {
  for (uint32_t h = 0; h < kInfinity; ++h) {
    const uint16_t below = static_cast<uint16_t>(h);
    const double high = h + 1 == kInfinity ? 65536 : HalfValue(below + 1);
    const float middle = static_cast<float>((HalfValue(below) + high) / 2);  // exact in f32
    for (const float value : {std::nextafter(middle, 0.0f), middle,
                              std::nextafter(middle, std::numeric_limits<float>::max())}) {
      const uint16_t expected = Nearest(value, below);
      ASSERT_EQ(f32_to_f16(value), expected) << value;
      ASSERT_EQ(f32_to_f16(-value), expected | 0x8000) << -value;
    }
  }
}

TEST(Half, RoundsRandomFloatsToNearestEven) {
  std::mt19937 random(1);
  for (int i = 0; i < 2'000'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()) & 0x7fffffffu);
    if (!(value < 65536)) continue;
    uint16_t low = 0, high = kInfinity;  // HalfValue(low) <= value < HalfValue(high)
    while (high - low > 1) {
      const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
      (HalfValue(middle) <= value ? low : high) = middle;
    }
    ASSERT_EQ(f32_to_f16(value), Nearest(value, low)) << value;
  }
}

TEST(Half, LargeFloatsBecomeInfinityAndNanStaysNan) {
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520), kInfinity);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), kInfinity);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), kInfinity | 0x8000);
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0x7fc00000u)), 0x7e00);
  // A payload in the low bits alone must not turn into infinity.
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0xff800001u)), 0xfe00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
}

TEST(Half, BrainFloatIsTheUpperHalfOfF32) {
  for (uint32_t b = 0; b < 65536; ++b) {
    ASSERT_EQ(Bits(bf16_to_f32(static_cast<uint16_t>(b))), b << 16);
  }
}

}  // namespace
}  // namespace thermocline
