// What packing must keep: every value, at any cut, in no more bytes than the file's.
#include "kernels/packed.h"

#include <gtest/gtest.h>

#include "common/gguf/dequantize.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels {
namespace {

class PackedTest : public testing::TestWithParam<TensorType> {
 protected:
  bool is_float() const { return type_info(GetParam())->is_float; }

  // Every value of rows x [first_col, first_col + n_cols), read back from the packed groups.
  void ExpectValuesOfFile(const FileRows& rows, int64_t file_cols, int64_t first_col,
                          int64_t n_cols) {
    const Packed packed = pack(rows, first_col, n_cols);
    std::vector<std::vector<float>> unpacked(packed.matrix.n_groups() * 16);
    for (int64_t group = 0; group < packed.matrix.n_groups(); ++group) {
      for (int64_t k = 0; k < n_cols; k += 32) {
        float values[32][16];
        unpack_block(packed.matrix, group, k / 32, values);
        for (int64_t i = 0; i < std::min<int64_t>(32, n_cols - k); ++i) {
          for (int row = 0; row < 16; ++row) unpacked[group * 16 + row].push_back(values[i][row]);
        }
      }
    }
    for (int64_t row = 0; row < std::ssize(unpacked); ++row) {
      std::vector<float> expected(file_cols);
      if (row < rows.n_rows) dequantize(rows.type, rows.row(row), file_cols, expected.data());
      expected = {expected.begin() + first_col, expected.begin() + first_col + n_cols};
      if (row < rows.n_rows) {
        ASSERT_TRUE(same_bits(unpacked[row], expected)) << "row " << row << " from " << first_col;
      } else {
        ASSERT_EQ(unpacked[row], expected) << "padding row " << row;
      }
    }
  }
};

TEST_P(PackedTest, ValuesAreTheFilesAtAnyCutOf32Columns) {
  const FileRows rows = random_rows(GetParam(), 5, 768, 1);
  for (int64_t first = 0; first < 768; first += 32) {
    for (const int64_t n : {int64_t{32}, int64_t{96}, int64_t{288}, 768 - first}) {
      if (first + n <= 768) ExpectValuesOfFile(rows, 768, first, n);
    }
  }
}

TEST_P(PackedTest, ValuesAreTheFilesForAnyNumberOfRows) {
  for (int64_t n_rows = 1; n_rows <= 35; ++n_rows) {
    ExpectValuesOfFile(random_rows(GetParam(), n_rows, 256, 2), 256, 64, 160);
  }
}

TEST_P(PackedTest, FloatColumnsMayBeAnyNumber) {
  if (!is_float()) GTEST_SKIP() << "quantized types are cut at 32 columns";
  const FileRows rows = random_rows(GetParam(), 17, 100, 3);
  for (int64_t first = 0; first < 5; ++first) {
    for (int64_t n = 0; n <= 70; ++n) ExpectValuesOfFile(rows, 100, first, n);
  }
}

TEST_P(PackedTest, TakesTheFilesBytesUpToPadding) {
  const int64_t n_rows = 32, n_cols = 4096;
  const PackedMatrix packed = packed_layout(GetParam(), n_rows, 0, n_cols);
  const TypeInfo& info = *type_info(GetParam());
  const int64_t file_bytes = n_rows * n_cols / info.block_size * info.block_bytes;
  if (GetParam() == TensorType::kQ4_K || GetParam() == TensorType::kQ5_K) {
    // 6-bit scales become bytes: 148 for 144, 180 for 176.
    EXPECT_LE(packed.n_bytes(), file_bytes * 103 / 100);
  } else {
    EXPECT_EQ(packed.n_bytes(), file_bytes);
  }
}

TEST_P(PackedTest, EmptyMatricesHaveNoBytes) {
  EXPECT_EQ(packed_layout(GetParam(), 0, 0, 4096).n_bytes(), 0);
  EXPECT_EQ(packed_layout(GetParam(), 16, 0, 0).n_bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, PackedTest, testing::ValuesIn(all_types()), type_name);

}  // namespace
}  // namespace thermocline::kernels
