// overlap_bench with a small model and a slow CPU rank: that it runs, and that ranks do not take
// turns. How close a step comes to its slowest rank is for a quiet machine.
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/testing/subprocess.h"

namespace thermocline::testing {
namespace {

const std::string kProgram = std::string(THERMOCLINE_BIN_DIR) + "/overlap_bench";

// Numbers of the lines that have as many as the table has columns.
std::vector<std::vector<double>> RowsOf(const std::string& text) {
  std::vector<std::vector<double>> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream cells(line);
    std::vector<double> row;
    char bar;
    for (double value; cells >> bar >> value;) row.push_back(value);
    if (row.size() == 10) rows.push_back(row);
  }
  return rows;
}

// A busy machine may hold one of the ranks up; ranks that took turns would do so every time.
TEST(OverlapBench, BothRanksTakeLessThanOneAfterTheOther) {
  constexpr int kAttempts = 4;
  bool overlaps = false;
  for (int attempt = 0; attempt < kAttempts && !overlaps; ++attempt) {
    const ChildResult result =
        RunChild({kProgram, "--isa", "reference", "--d-ff", "1024", "-n", "1", "--repeats", "5"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::vector<std::vector<double>> rows = RowsOf(result.out);
    ASSERT_EQ(rows.size(), 3u) << result.out;
    for (const std::vector<double>& row : rows) {
      const double base = row[1], gpu = row[2], predicted = row[8];
      EXPECT_GE(base, 16) << result.out;  // two layers' attention, a millisecond a kernel
      EXPECT_GT(gpu, base) << result.out;
      EXPECT_GT(predicted, base) << result.out;
    }
    overlaps = rows[1][4] < rows[1][7];  // where both have about as much to do
    if (!overlaps) std::cerr << result.out;
  }
  EXPECT_TRUE(overlaps);
}

TEST(OverlapBench, AWrongFlagIsRefused) {
  EXPECT_EQ(RunChild({kProgram, "--sleep-us", "0"}).exit_code, 2);
}

}  // namespace
}  // namespace thermocline::testing
