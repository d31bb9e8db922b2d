// The race checker: quiet on kernels that are right, and it names what is not.
#include <numeric>

#include "tests/kernels/simt/simt_testing.h"

namespace thermocline::kernels::simt {
namespace {

class RacesTest : public SimtTest {
 protected:
  std::vector<int> out_ = std::vector<int>(1024), data_ = std::vector<int>(1024);
  unsigned word_ = 0;
};

#define EXPECT_CLEAN(...)                  \
  do {                                     \
    const Error error = run(__VA_ARGS__);  \
    EXPECT_TRUE(error.ok()) << error.text; \
  } while (false)

TEST_F(RacesTest, BarriersOrderABlock) {
  std::vector<float> values(300, 1), sums(300), matrix(64 * 64), transposed(64 * 64);
  EXPECT_CLEAN({"sum_blocks", 3, 128}, emulated::sum_blocks, values.data(), 300, sums.data());
  EXPECT_CLEAN({"scan", 1, 256, 1024}, emulated::scan, data_.data(), 200, out_.data());
  EXPECT_CLEAN({"transpose", dim3(2, 2), dim3(32, 8)}, emulated::transpose, matrix.data(), 64, 64,
               transposed.data());
  std::vector<float4> vectors(96);
  EXPECT_CLEAN({"reverse", 1, 96, 96 * 16}, emulated::reverse, vectors.data());
}

TEST_F(RacesTest, AtomicsDoNotRace) {
  std::vector<unsigned char> bytes(1000, 5);
  std::vector<unsigned> counts(256);
  EXPECT_CLEAN({"count_bytes", 3, 96}, emulated::count_bytes, bytes.data(), 1000, counts.data());
  EXPECT_EQ(counts[5], 1000);
  unsigned long long wide = 0;
  float sum = 0;
  EXPECT_CLEAN({"use_atomics", 1, 40}, emulated::use_atomics, counts.data(), &wide, &sum);
}

TEST_F(RacesTest, SyncwarpOrdersItsLanes) {
  EXPECT_CLEAN({"exchange_in_warp", 1, 128}, emulated::exchange_in_warp, out_.data());
}

TEST_F(RacesTest, FencesAndFlagsOrderBlocks) {
  unsigned cell = 0, arrived = 0, arrivals = 0;
  std::vector<unsigned> sums(5 * 9);
  EXPECT_CLEAN({"sum_in_rounds", 9, 64, 0, true}, emulated::sum_in_rounds, &cell, &arrived, 5,
               sums.data());
  EXPECT_CLEAN({"sum_by_last_block", 32, 32}, emulated::sum_by_last_block, data_.data(), 1000,
               out_.data(), &arrivals, data_.data() + 1023);
  EXPECT_CLEAN({"hand_over", 1, 64}, emulated::hand_over, &word_, sums.data());
}

TEST_F(RacesTest, MissingSyncthreadsIsFound) {
  EXPECT_CLEAN({"reverse", 1, 64}, emulated::reverse_in_shared, true, out_.data());
  expect_error(run({"reverse", 1, 64}, emulated::reverse_in_shared, false, out_.data()),
               ErrorCode::kRace,
               {"kernel reverse, block (0, 0, 0): race on byte 128 of shared values: ",
                "thread (32, 0, 0) writes it (addr2line -Cfie ",
                "thread (31, 0, 0) of block (0, 0, 0) read it with no barrier"});
}

TEST_F(RacesTest, WriteTooSoonAfterAReadIsFound) {
  EXPECT_CLEAN({"write", 1, 64}, emulated::write_after_read, true, out_.data());
  expect_error(run({"write", 1, 64}, emulated::write_after_read, false, out_.data()),
               ErrorCode::kRace, {"shared values", "writes it", "read it"});
}

TEST_F(RacesTest, AShuffleOrdersNoMemory) {
  EXPECT_CLEAN({"exchange", 1, 32}, emulated::exchange_lanes, true, out_.data());
  expect_error(run({"exchange", 1, 32}, emulated::exchange_lanes, false, out_.data()),
               ErrorCode::kRace, {"shared values", "reads it", "wrote it"});
}

TEST_F(RacesTest, BlocksThatWriteOneWordAreFound) {
  EXPECT_CLEAN({"write", 3, 1}, emulated::write_one_word_from_all_blocks, true, out_.data());
  expect_error(
      run({"write", 3, 1}, emulated::write_one_word_from_all_blocks, false, out_.data()),
      ErrorCode::kRace,
      {"block (1, 0, 0)", "of device memory", "thread (0, 0, 0) of block (0, 0, 0) wrote"});
}

TEST_F(RacesTest, LostUpdatesAreFound) {
  EXPECT_CLEAN({"count", 1, 64}, emulated::count_plainly, true, out_.data());
  expect_error(run({"count", 1, 64}, emulated::count_plainly, false, out_.data()), ErrorCode::kRace,
               {"of device memory"});
}

TEST_F(RacesTest, MissingFenceIsFound) {
  EXPECT_CLEAN({"publish", 2, 1, 0, true}, emulated::publish, true, data_.data(), &word_,
               out_.data());
  word_ = 0;
  expect_error(
      run({"publish", 2, 1, 0, true}, emulated::publish, false, data_.data(), &word_, out_.data()),
      ErrorCode::kRace, {"block (1, 0, 0)", "thread (0, 0, 0) reads", "block (0, 0, 0) wrote"});
}

TEST_F(RacesTest, GridBarrierWithoutTheBlocksOwnIsFound) {
  EXPECT_CLEAN({"read", 3, 64, 0, true}, emulated::read_what_threads_of_others_wrote, true,
               data_.data(), &word_, out_.data());
  word_ = 0;
  expect_error(run({"read", 3, 64, 0, true}, emulated::read_what_threads_of_others_wrote, false,
                   data_.data(), &word_, out_.data()),
               ErrorCode::kRace, {"of device memory"});
}

TEST_F(RacesTest, NeighbouringBytesAreApart) {
  std::vector<unsigned char> bytes(64);
  EXPECT_CLEAN({"write", 1, 64}, emulated::write_neighbouring_bytes, bytes.data());
}

TEST_F(RacesTest, LaunchesAreOrdered) {
  Device device;
  Stream stream(&device);
  for (int i = 0; i < 3; ++i) {
    launch(&stream, {"write", 1, 1}, emulated::write_one_word_from_all_blocks, false, out_.data());
  }
  EXPECT_TRUE(stream.synchronize().ok());
}

}  // namespace
}  // namespace thermocline::kernels::simt
