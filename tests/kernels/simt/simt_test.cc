// Kernels on the host compute what they would on a GPU. Bugs: bugs_test.cc; races: races_test.cc.
#include <cmath>
#include <numeric>

#include "kernels/simt/intrinsics.h"
#include "tests/kernels/simt/simt_testing.h"

namespace thermocline::kernels::simt {
namespace {

using testing::Each;
using testing::ElementsAre;

TEST_F(SimtTest, EachThreadKnowsItsPlace) {
  const dim3 grid(3, 2, 2), block(5, 3, 4);
  std::vector<unsigned> indices(6 * 12 * 60), expected;
  for (unsigned i = 0; i < 12 * 60; ++i) {
    const unsigned thread = i % 60, b = i / 60;
    expected.insert(expected.end(),
                    {thread % 5, thread / 5 % 3, thread / 15, b % 3, b / 3 % 2, b / 6});
  }
  EXPECT_TRUE(run({"store_indices", grid, block}, emulated::store_indices, indices.data()).ok());
  EXPECT_EQ(indices, expected);
}

TEST_F(SimtTest, BlocksSumByShufflesAndSharedMemory) {
  for (const unsigned block : {32, 64, 256, 1024}) {
    const int n = 5000;
    const unsigned n_blocks = (n + block - 1) / block;
    std::vector<float> values(n), sums(n_blocks), expected(n_blocks);
    for (int i = 0; i < n; ++i) {
      values[i] = static_cast<float>(i * 37 % 101);  // sums of these are exact
      expected[i / block] += values[i];
    }
    EXPECT_TRUE(
        run({"sum_blocks", n_blocks, block}, emulated::sum_blocks, values.data(), n, sums.data())
            .ok());
    EXPECT_EQ(sums, expected) << block;
  }
}

TEST_F(SimtTest, ScanAddsUpEachPrefix) {
  for (const int n : {1, 31, 64, 100, 1000}) {
    std::vector<int> values(n), sums(n), expected(n);
    for (int i = 0; i < n; ++i) values[i] = i * 7919 % 1000 - 500;
    std::partial_sum(values.begin(), values.end(), expected.begin());
    EXPECT_TRUE(run({"scan", 1, 1024, 4096}, emulated::scan, values.data(), n, sums.data()).ok());
    EXPECT_EQ(sums, expected) << n;
  }
}

TEST_F(SimtTest, HistogramCountsByAtomics) {
  std::vector<unsigned char> bytes(10007);
  std::vector<unsigned> counts(256), expected(256);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(i * i % 251);
    ++expected[bytes[i]];
  }
  EXPECT_TRUE(run({"count_bytes", 3, 96}, emulated::count_bytes, bytes.data(),
                  static_cast<int>(bytes.size()), counts.data())
                  .ok());
  EXPECT_EQ(counts, expected);
}

TEST_F(SimtTest, TilesTransposeOddShapes) {
  const int n_rows = 70, n_columns = 45;
  std::vector<float> in(n_rows * n_columns), out(in.size()), expected(in.size());
  std::iota(in.begin(), in.end(), 0.0f);
  for (int row = 0; row < n_rows; ++row) {
    for (int column = 0; column < n_columns; ++column) {
      expected[column * n_rows + row] = in[row * n_columns + column];
    }
  }
  EXPECT_TRUE(run({"transpose", dim3(2, 3), dim3(32, 8)}, emulated::transpose, in.data(), n_rows,
                  n_columns, out.data())
                  .ok());
  EXPECT_EQ(out, expected);
}

TEST_F(SimtTest, DynamicSharedMemoryIsTheBlocksOwn) {
  std::vector<float4> values(96);
  for (int i = 0; i < 96; ++i) values[i] = {static_cast<float>(i), 0, 0, -static_cast<float>(i)};
  EXPECT_TRUE(run({"reverse", 1, 96, 96 * sizeof(float4)}, emulated::reverse, values.data()).ok());
  for (int i = 0; i < 96; ++i) {
    EXPECT_EQ(values[i].x, 95 - i);
    EXPECT_EQ(values[i].w, i - 95);
  }
}

TEST_F(SimtTest, SharedMemoryIsNeverZeroByChance) {
  std::vector<unsigned> words(64);
  EXPECT_TRUE(run({"store_unwritten", 1, 64}, emulated::store_unwritten, words.data()).ok());
  EXPECT_THAT(words, Each(0xffffffff));
}

TEST_F(SimtTest, ShufflesReadTheLanesOfPtx) {
  std::vector<int> out(32 * 8);
  EXPECT_TRUE(run({"shuffle_all", 1, 32}, emulated::shuffle_all, out.data()).ok());
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT_THAT(std::vector<int>(&out[8 * lane], &out[8 * lane] + 8),
                ElementsAre(7, (lane + 1) % 32, lane / 8 * 8 + 2, lane < 3 ? lane : lane - 3,
                            lane % 4 == 0 ? lane : lane - 1, lane % 16 > 12 ? lane : lane + 3,
                            lane ^ 5, lane < 16 ? lane : lane ^ 24))
        << lane;
  }
}

TEST_F(SimtTest, ShufflesCarryEveryType) {
  std::vector<int> out(32);
  EXPECT_TRUE(run({"shuffle_types", 1, 32}, emulated::shuffle_types, out.data()).ok());
  EXPECT_THAT(out, Each(1));
}

TEST_F(SimtTest, VotesPassOverExitedLanes) {
  std::vector<unsigned> out(32 * 4);
  EXPECT_TRUE(run({"vote_all", 1, 32}, emulated::vote_all, out.data()).ok());
  for (int lane = 0; lane < 20; ++lane) {
    EXPECT_THAT(std::vector<unsigned>(&out[4 * lane], &out[4 * lane] + 4),
                ElementsAre(0x000aaaaa, 1, 0, 1));
  }
}

TEST_F(SimtTest, HalfWarpsShuffleApart) {
  std::vector<int> out(32);
  EXPECT_TRUE(run({"sum_halves", 1, 32}, emulated::sum_halves, out.data()).ok());
  for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(out[lane], lane < 16 ? 120 : 376);
}

TEST_F(SimtTest, SyncwarpOrdersSharedMemory) {
  std::vector<int> out(128);
  EXPECT_TRUE(run({"exchange_in_warp", 1, 128}, emulated::exchange_in_warp, out.data()).ok());
  for (int i = 0; i < 128; ++i) EXPECT_EQ(out[i], 3 * (i ^ 33));
}

TEST_F(SimtTest, BlocksOfACooperativeGridWaitForEachOther) {
  const unsigned n_blocks = 9;
  const int n_rounds = 5;
  unsigned cell = 0, arrived = 0;
  std::vector<unsigned> out(n_rounds * n_blocks);
  EXPECT_TRUE(run({"sum_in_rounds", n_blocks, 64, 0, true}, emulated::sum_in_rounds, &cell,
                  &arrived, n_rounds, out.data())
                  .ok());
  for (int i = 0; i < n_rounds * 9; ++i) EXPECT_EQ(out[i], 36u * (i / 9 + 1));
}

TEST_F(SimtTest, TheLastBlockSeesAllPartialSums) {
  std::vector<int> values(1000), partial(32);
  std::iota(values.begin(), values.end(), 1);
  unsigned arrived = 0;
  int sum = 0;
  EXPECT_TRUE(run({"sum_by_last_block", 32, 32}, emulated::sum_by_last_block, values.data(), 1000,
                  partial.data(), &arrived, &sum)
                  .ok());
  EXPECT_EQ(sum, 500500);
}

TEST_F(SimtTest, ThreadsOfABlockHandOverBySpinning) {
  unsigned word = 0, out = 0;
  EXPECT_TRUE(run({"hand_over", 1, 64}, emulated::hand_over, &word, &out).ok());
  EXPECT_EQ(out, 3);
}

TEST_F(SimtTest, ArithmeticHasTheBitsOfAGpu) {
  std::vector<unsigned> out(35);
  EXPECT_TRUE(run({"compute", 1, 1}, emulated::compute, out.data()).ok());
  const std::vector<unsigned> expected = {
      0x7bff, 0x7c00, 0x3c00, 0x0001, 0x7fff, 0x33800000, 0xc0000000, 0x3f80, 0x3f82, 0x7fff,
      0x3f810000,
      // -128 * 127 + -1 * 2 + 127 * -128 + 1 * 127 + 5, then the same bytes unsigned.
      static_cast<unsigned>(-16256 - 2 - 16256 + 127 + 5),
      128 * 127 + 255 * 2 + 127 * 128 + 127 + 5, 0x7fffffffu + 4 * 127, 9, 32, 15, 0, 5, 0x77220066,
      0x6789abcd, 0x23456789, 2, static_cast<unsigned>(-4), 0x7fffffff, 0x80000000, 0, 0x33800000,
      0, 0x3f3504f3, 0x3f800000, 0, 0x80000000, static_cast<unsigned>(-1), 0x80000000};
  EXPECT_EQ(out, expected);
}

// x = X 2^-23 or X 2^-22 lies in [1, 4), y = Y 2^-24: Y is the nearest if 1 lies between x (y +-
// half a place)^2.
TEST(IntrinsicsTest, InverseRootOfEverySignificandIsRoundedOnce) {
  for (int exponent = 0; exponent < 2; ++exponent) {
    const __int128 one = __int128{1} << (73 - exponent);
    int64_t n_wrong = 0;
    for (int64_t significand = 1 << 23; significand < 1 << 24; ++significand) {
      const float x = std::ldexp(static_cast<float>(significand), exponent - 23);
      const auto y = static_cast<int64_t>(__frsqrt_rn(x) * 16777216.0f);
      const __int128 low = __int128{2 * y - 1} * (2 * y - 1) * significand;
      const __int128 high = __int128{2 * y + 1} * (2 * y + 1) * significand;
      n_wrong += low > one || high < one;
    }
    EXPECT_EQ(n_wrong, 0) << exponent;
  }
}

TEST_F(SimtTest, AtomicsOfAllThreadsCount) {
  std::vector<unsigned> cells = {0, 0, 100, 0, 0xff, 0, 1, 0, 0x80000000};
  unsigned long long wide = 0;
  float sum = 0;
  EXPECT_TRUE(run({"use_atomics", 1, 40}, emulated::use_atomics, cells.data(), &wide, &sum).ok());
  unsigned power = 1;
  for (int i = 0; i < 40; ++i) power *= 3;
  EXPECT_THAT(cells, ElementsAre(780, 39, 3, 0xffffffff, 0xf0, 7, power, static_cast<unsigned>(-39),
                                 static_cast<unsigned>(-1)));
  EXPECT_EQ(wide, 40ull << 32);
  EXPECT_EQ(sum, 20);
}

TEST_F(SimtTest, ArgumentsAreConvertedAndCopied) {
  std::vector<double> out(4);
  EXPECT_TRUE(run({"pass_arguments", 1, 1}, emulated::pass_arguments, float4{1, 2, 3, 4}, 0.1f, 65,
                  out.data())
                  .ok());
  EXPECT_THAT(out, ElementsAre(1, 4, double{0.1f}, 65));
}

}  // namespace
}  // namespace thermocline::kernels::simt
