// That products with single rows keep the contract of numbers (rows.h, ops.h): packing keeps every
// value, products have the bits of the packed matrix's at every level, and a sketch is the product
// with what the lead bits leave possible.
#include "kernels/rows.h"

#include <gtest/gtest.h>

#include "common/gguf/dequantize.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels {
namespace {

constexpr float kUntouched = 12345.0f;

struct Form {
  TensorType type;
  int lead_bits;
};

std::vector<Form> all_forms() {
  std::vector<Form> forms;
  for (const TypeInfo& info : kTensorTypes) {
    for (int lead_bits = 0; lead_bits <= (info.is_float ? 0 : 3); ++lead_bits) {
      forms.push_back({info.type, lead_bits});
    }
  }
  return forms;
}

std::string form_name(const testing::TestParamInfo<Form>& info) {
  return std::string(type_info(info.param.type)->name) + "Lead" +
         std::to_string(info.param.lead_bits);
}

// File rows split into streams that end where reading past their padding is a fault.
struct Rows {
  RowMatrix matrix;
  AtPageEnd<uint8_t> rest, lead;
  std::vector<float> row_scale;

  Rows(const FileRows& rows, const RowMatrix& layout)
      : matrix(layout),
        rest(layout.n_rows * layout.rest_bytes + kRowPadding),
        lead(layout.n_rows * layout.lead_bytes + kRowPadding),
        row_scale(layout.n_rows, kUntouched) {
    matrix.rest = rest.data();
    matrix.lead = lead.data();
    matrix.row_scale = row_scale.data();
    for (int64_t i = 0; i < layout.n_rows; ++i) pack_row(matrix, i, rows.row(i));
  }
};

// Some blocks all zero bits, some with a scale of -0.
void put_zeros(FileRows& rows) {
  const TypeInfo& info = *type_info(rows.type);
  for (size_t block = 0; block * info.block_bytes < rows.bytes.size(); block += 5) {
    uint8_t* at = rows.bytes.data() + block * info.block_bytes;
    std::memset(at, 0, info.block_bytes);
    if (block % 2 == 1 && info.block_size == 32) at[1] = 0x80;  // of d
  }
}

struct Call {
  std::vector<int32_t> rows;
  int64_t n_tokens;
  int64_t n_cols;
  int64_t out_padding = 5;  // elements between the tokens of `out`
  int64_t x_padding = 32;   // and of x

  int64_t room() const { return (std::ssize(rows) + 15) / 16 * 16; }
  int64_t out_stride() const { return room() + out_padding; }
};

// n of 64 rows, ascending, with gaps.
std::vector<int32_t> scattered(int64_t n) {
  std::vector<int32_t> rows;
  std::mt19937 generator(static_cast<uint32_t>(n));
  for (int32_t row = 0; row < 64; ++row) {
    const auto left = static_cast<uint32_t>(64 - row);
    if (generator() % left < static_cast<uint32_t>(n - std::ssize(rows))) rows.push_back(row);
  }
  return rows;
}

class RowsTest : public testing::TestWithParam<Form> {
 protected:
  TensorType type() const { return GetParam().type; }
  int lead_bits() const { return GetParam().lead_bits; }
  bool is_float() const { return type_info(type())->is_float; }
  bool has_row_scale() const {
    return lead_bits() == 1 && (type() == TensorType::kQ8_0 || type() == TensorType::kQ4_0);
  }

  std::vector<int64_t> column_counts() const {
    std::vector<int64_t> counts;
    for (const int64_t n : {32, 96, 256, 288, 768}) {
      if (n % type_info(type())->block_size == 0) counts.push_back(n);
    }
    return counts;
  }
  Rows Split(const FileRows& rows, int64_t n_cols) const {
    return Rows(rows, row_layout(type(), rows.n_rows, n_cols, lead_bits()));
  }

  // [n_tokens][rows of the call]; that nothing but the room of the outputs is written is checked.
  std::vector<float> Multiply(Isa isa, const RowMatrix& w, const Call& call,
                              const std::vector<float>& x) const {
    AtPageEnd<float> out(
        std::vector<float>((call.n_tokens - 1) * call.out_stride() + call.room(), kUntouched));
    const auto n_rows = std::ssize(call.rows);
    if (is_float()) {
      const int64_t stride = call.n_cols + call.x_padding;
      AtPageEnd<float> in(call.n_tokens * stride - call.x_padding);
      for (int64_t t = 0; t < call.n_tokens; ++t) {
        std::copy_n(x.data() + t * call.n_cols, call.n_cols, in.data() + t * stride);
      }
      ops(isa).rows_f32(w, call.rows.data(), n_rows, in.data(), stride, call.n_tokens, out.data(),
                        call.out_stride());
    } else {
      Quantized in(x, call.n_tokens, call.n_cols, call.x_padding);
      ops(isa).rows_int8(w, call.rows.data(), n_rows, in.rows(), call.n_tokens, out.data(),
                         call.out_stride());
    }
    return Outputs(out.values(), n_rows, call);
  }

  static std::vector<float> Outputs(const std::vector<float>& out, int64_t n_rows,
                                    const Call& call) {
    std::vector<float> outputs;
    for (int64_t t = 0; t < call.n_tokens; ++t) {
      const auto at = out.begin() + t * call.out_stride();
      outputs.insert(outputs.end(), at, at + n_rows);
      if (t + 1 == call.n_tokens) break;
      for (int64_t i = call.room(); i < call.out_stride(); ++i) {
        EXPECT_EQ(at[i], kUntouched) << "between tokens " << t << " and " << t + 1;
      }
    }
    return outputs;
  }

  // The outputs of the same rows of the packed matrix.
  std::vector<float> MultiplyPacked(const FileRows& rows, const Call& call,
                                    const std::vector<float>& x) const {
    const Packed packed = pack(rows, 0, call.n_cols);
    const PackedMatrix& m = packed.matrix;
    const int64_t stride = m.n_groups() * 16;
    std::vector<float> out(call.n_tokens * stride), outputs;
    const Ops& reference = ops(Isa::kReference);
    if (is_float()) {
      reference.matmul_f32(m, 0, m.n_groups(), x.data(), call.n_cols, call.n_tokens, out.data(),
                           stride);
    } else {
      Quantized in(x, call.n_tokens, call.n_cols);
      reference.matmul_int8(m, 0, m.n_groups(), in.rows(), call.n_tokens, out.data(), stride);
    }
    for (int64_t t = 0; t < call.n_tokens; ++t) {
      for (const int32_t row : call.rows) outputs.push_back(out[t * stride + row]);
    }
    return outputs;
  }

  void ExpectBitsOfPacked(const FileRows& rows, const Rows& split, const Call& call) const {
    const std::vector<float> x = random_values(call.n_tokens * call.n_cols, 7);
    const std::vector<float> expected = MultiplyPacked(rows, call, x);
    for (const Isa isa : levels_here()) {
      ASSERT_TRUE(same_bits(Multiply(isa, split.matrix, call, x), expected))
          << ops(isa).name << ", " << call.rows.size() << " rows, " << call.n_cols << " columns, "
          << call.n_tokens << " tokens";
    }
  }

  std::vector<float> Sketch(Isa isa, const RowMatrix& w, int64_t begin, int64_t end,
                            int64_t n_tokens, const std::vector<float>& x) const {
    const Call call = {std::vector<int32_t>(end - begin), n_tokens, w.n_cols};
    AtPageEnd<float> out(
        std::vector<float>((n_tokens - 1) * call.out_stride() + call.room(), kUntouched));
    Quantized in(x, n_tokens, w.n_cols, call.x_padding);
    ops(isa).sketch_int8(w, begin, end, in.rows(), n_tokens, out.data(), call.out_stride());
    return Outputs(out.values(), end - begin, call);
  }
};

TEST_P(RowsTest, UnpackedRowsAreTheFiles) {
  for (const int64_t n_cols : column_counts()) {
    FileRows rows = random_rows(type(), 7, n_cols, 1);
    if (!is_float()) put_zeros(rows);
    const Rows split = Split(rows, n_cols);
    for (int64_t row = 0; row < rows.n_rows; ++row) {
      std::vector<float> expected(n_cols), values(n_cols);
      dequantize(type(), rows.row(row), n_cols, expected.data());
      unpack_row(split.matrix, row, values.data());
      ASSERT_TRUE(same_bits(values, expected)) << n_cols << " columns, row " << row;
    }
  }
}

TEST_P(RowsTest, BothStreamsTakeTheFilesBytes) {
  const RowMatrix m = row_layout(type(), 48, 4096, lead_bits());
  const TypeInfo& info = *type_info(type());
  const int64_t file_bytes = 48 * 4096 / info.block_size * info.block_bytes;
  if (type() == TensorType::kQ4_K || type() == TensorType::kQ5_K) {
    // 6-bit scales become bytes: 148 for 144, 180 for 176.
    EXPECT_LE(m.n_bytes(), file_bytes * 103 / 100);
  } else {
    EXPECT_EQ(m.n_bytes(), file_bytes);
  }
}

TEST_P(RowsTest, RowScaleIsTheMeanMagnitudeWhereTheLeadIsASign) {
  FileRows rows = random_rows(type(), 9, 768, 2);
  if (!is_float()) put_zeros(rows);
  const Rows split = Split(rows, 768);
  for (int64_t row = 0; row < rows.n_rows; ++row) {
    std::vector<float> values(768);
    dequantize(type(), rows.row(row), 768, values.data());
    double sum = 0;
    for (const float value : values) sum += std::abs(value);
    const double mean = has_row_scale() ? sum / 768 : kUntouched;
    EXPECT_NEAR(split.row_scale[row], mean, mean * kRounding * 4) << "row " << row;
  }
}

TEST_P(RowsTest, ProductsHaveTheBitsOfThePackedMatrix) {
  for (const int64_t n_cols : column_counts()) {
    FileRows rows = random_rows(type(), 64, n_cols, 3);
    if (!is_float()) put_zeros(rows);
    const Rows split = Split(rows, n_cols);
    for (const int64_t n_rows : {1, 15, 16, 17, 40}) {
      for (const int64_t n_tokens : {1, 3, 4, 9}) {
        ExpectBitsOfPacked(rows, split, {scattered(n_rows), n_tokens, n_cols});
      }
    }
  }
}

TEST_P(RowsTest, RowsMayBeListedInAnyOrderAndTwice) {
  const FileRows rows = random_rows(type(), 64, 256, 4);
  ExpectBitsOfPacked(rows, Split(rows, 256), {{63, 0, 5, 5, 62, 1, 0}, 2, 256});
}

TEST_P(RowsTest, NoRowsWriteNothing) {
  const FileRows rows = random_rows(type(), 3, 256, 5);
  const Rows split = Split(rows, 256);
  for (const Isa isa : levels_here()) {
    Multiply(isa, split.matrix, {{}, 3, 256}, random_values(3 * 256, 6));
    if (lead_bits() > 0) Sketch(isa, split.matrix, 2, 2, 3, random_values(3 * 256, 6));
  }
}

TEST_P(RowsTest, SketchesOfAnyRowsGiveTheReferencesBits) {
  if (lead_bits() == 0) GTEST_SKIP() << "not split";
  for (const int64_t n_cols : column_counts()) {
    FileRows rows = random_rows(type(), 64, n_cols, 8);
    put_zeros(rows);
    const Rows split = Split(rows, n_cols);
    for (const auto& [begin, end] : {std::pair{0, 64}, {0, 16}, {3, 20}, {5, 6}, {49, 64}}) {
      for (const int64_t n_tokens : {1, 3, 4, 9}) {
        const std::vector<float> x = random_values(n_tokens * n_cols, 9);
        const std::vector<float> expected =
            Sketch(Isa::kReference, split.matrix, begin, end, n_tokens, x);
        for (const Isa isa : levels_here()) {
          ASSERT_TRUE(same_bits(Sketch(isa, split.matrix, begin, end, n_tokens, x), expected))
              << ops(isa).name << ", rows " << begin << " to " << end << ", " << n_cols
              << " columns, " << n_tokens << " tokens";
        }
      }
    }
  }
}

// The same rows with all bits of their quants set to the smallest or the largest quant, so that
// dequantization tells what is possible. Where quants lie in a block is tensor_type.h's.
FileRows with_quants(FileRows rows, bool largest) {
  const TypeInfo& info = *type_info(rows.type);
  const uint8_t fill = largest ? 0xff : 0;
  for (size_t at = 0; at < rows.bytes.size(); at += info.block_bytes) {
    uint8_t* block = rows.bytes.data() + at;
    switch (rows.type) {
      case TensorType::kQ8_0:
        std::memset(block + offsetof(BlockQ8_0, qs), largest ? 127 : -128, 32);
        break;
      case TensorType::kQ4_0:
        std::memset(block + offsetof(BlockQ4_0, qs), fill, 16);
        break;
      case TensorType::kQ4_K:
        std::memset(block + offsetof(BlockQ4_K, qs), fill, 128);
        break;
      case TensorType::kQ5_K:
        std::memset(block + offsetof(BlockQ5_K, qh), fill, 32 + 128);
        break;
      case TensorType::kQ6_K:
        std::memset(block + offsetof(BlockQ6_K, ql), fill, 128 + 64);
        break;
      default:
        ADD_FAILURE() << "no quants";
    }
  }
  return rows;
}

int quant_bits(TensorType type) {
  switch (type) {
    case TensorType::kQ8_0:
      return 8;
    case TensorType::kQ6_K:
      return 6;
    case TensorType::kQ5_K:
      return 5;
    default:
      return 4;
  }
}

TEST_P(RowsTest, ASketchIsTheProductWithTheMiddlesOfWhatTheLeadLeavesPossible) {
  if (lead_bits() == 0) GTEST_SKIP() << "not split";
  constexpr int64_t kRows = 20, kCols = 768;
  FileRows rows = random_rows(type(), kRows, kCols, 10);
  put_zeros(rows);
  const FileRows smallest = with_quants(rows, false), largest = with_quants(rows, true);
  const Rows split = Split(rows, kCols);
  const std::vector<float> x = random_values(kCols, 11);
  Quantized in(x, 1, kCols);
  const int64_t n_quants = int64_t{1} << quant_bits(type()), step = n_quants >> lead_bits();
  std::vector<double> expected(kRows), tolerance(kRows);
  for (int64_t row = 0; row < kRows; ++row) {
    std::vector<float> values(kCols), low(kCols), high(kCols);
    dequantize(type(), rows.row(row), kCols, values.data());
    dequantize(type(), smallest.row(row), kCols, low.data());
    dequantize(type(), largest.row(row), kCols, high.data());
    for (int64_t k = 0; k < kCols; ++k) {
      const double activation = double{in.scale.data()[k / 32]} * in.q.data()[k];
      const double unit = (double{high[k]} - low[k]) / static_cast<double>(n_quants - 1);
      const int64_t quant = unit == 0 ? 0 : std::llround((values[k] - double{low[k]}) / unit);
      const double middle =
          static_cast<double>(quant / step * step) + static_cast<double>(step - 1) / 2;
      double weight = low[k] + middle * unit;
      if (has_row_scale()) weight = std::copysign(split.row_scale[row], values[k]);
      expected[row] += weight * activation;
      tolerance[row] += (std::abs(double{low[k]}) + std::abs(double{high[k]})) *
                        std::abs(activation) * 4 * (kCols / 32) * kRounding;
    }
  }
  EXPECT_TRUE(within(Sketch(Isa::kReference, split.matrix, 0, kRows, 1, x), expected, tolerance));
}

INSTANTIATE_TEST_SUITE_P(Forms, RowsTest, testing::ValuesIn(all_forms()), form_name);

}  // namespace
}  // namespace thermocline::kernels
