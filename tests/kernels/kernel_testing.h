// What the tests of kernels share: the levels of this machine, buffers that end at an unreadable
// page, random values, and comparison by bits. No judge of any op is here.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace thermocline::kernels {

// Half an ulp of 1: what one f32 operation may err by, relatively.
inline constexpr double kRounding = 0x1p-24;

inline std::vector<Isa> levels_here() {
  std::vector<Isa> levels;
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512}) {
    if (isa_supported(isa)) levels.push_back(isa);
  }
  return levels;
}

inline std::string level_name(const ::testing::TestParamInfo<Isa>& info) {
  return ops(info.param).name;
}

// n elements, the last of which ends where a page without access begins, so that one element read
// or written past the end is a fault, and starts are aligned to sizeof(T) only.
template <typename T>
class AtPageEnd {
 public:
  explicit AtPageEnd(int64_t n) : n_(n) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    n_bytes_ = (n * static_cast<int64_t>(sizeof(T)) + page - 1) / page * page + page;
    map_ = mmap(nullptr, n_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(map_, MAP_FAILED);
    char* const end = static_cast<char*>(map_) + n_bytes_ - page;
    EXPECT_EQ(mprotect(end, page, PROT_NONE), 0);
    data_ = reinterpret_cast<T*>(end) - n;
  }
  explicit AtPageEnd(const std::vector<T>& values) : AtPageEnd(std::ssize(values)) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~AtPageEnd() { munmap(map_, n_bytes_); }
  AtPageEnd(const AtPageEnd&) = delete;
  AtPageEnd& operator=(const AtPageEnd&) = delete;

  T* data() { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + n_); }

 private:
  int64_t n_;
  int64_t n_bytes_;
  void* map_;
  T* data_;
};

// Normally distributed, the same for the same seed.
inline std::vector<float> random_values(int64_t n, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

// Equal in every bit, or both NaN: which of two NaNs an operation keeps is the compiler's choice.
inline ::testing::AssertionResult same_bits(const std::vector<float>& actual,
                                            const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
    if (std::memcmp(&actual[i], &expected[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "element " << i << " of " << actual.size() << ": "
                                           << std::hexfloat << actual[i] << ", not " << expected[i];
    }
  }
  return ::testing::AssertionSuccess();
}

// |actual - expected| <= tolerance, element by element; names the one that fails worst.
inline ::testing::AssertionResult within(const std::vector<float>& actual,
                                         const std::vector<double>& expected,
                                         const std::vector<double>& tolerance) {
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double excess = std::abs(actual[i] - expected[i]) / tolerance[i];
    if (!(excess <= worst)) {
      worst = std::isnan(excess) ? INFINITY : excess;
      at = i;
    }
  }
  if (worst <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << at << ": " << actual[at] << ", not "
                                       << expected[at] << " +- " << tolerance[at];
}

// 0 to 2 * 16 - 1, where all tails are, and lengths of models.
inline std::vector<int64_t> lengths() {
  std::vector<int64_t> lengths(32);
  for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = static_cast<int64_t>(i);
  lengths.insert(lengths.end(), {48, 100, 129, 2048, 4099});
  return lengths;
}

}  // namespace thermocline::kernels
