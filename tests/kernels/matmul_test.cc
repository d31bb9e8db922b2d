// That products with packed weights keep the contract of numbers (ops.h): every level gives the
// reference's bits for any shape, cut, number of tokens and range of groups, and the reference is
// near the exact sum. Products of ggml's own vectors are in matmul_golden_test.cc.
#include <gtest/gtest.h>

#include "kernels/reference/packed_block.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels {
namespace {

constexpr float kUntouched = 12345.0f;

struct Shape {
  int64_t n_rows;
  int64_t first_col;
  int64_t n_cols;
  int64_t n_tokens;
  int64_t group_begin = 0;
  int64_t group_end = -1;   // -1: all
  int64_t out_padding = 0;  // elements between the rows of `out`
  int64_t x_padding = 0;    // elements between the rows of x, a multiple of 32
};

class MatmulTest : public testing::TestWithParam<TensorType> {
 protected:
  bool is_float() const { return type_info(GetParam())->is_float; }

  // [n_tokens, out_stride], what lies between the outputs included.
  static std::vector<float> Multiply(Isa isa, bool int8, const PackedMatrix& w, const Shape& shape,
                                     const std::vector<float>& x) {
    const int64_t end = shape.group_end < 0 ? w.n_groups() : shape.group_end;
    const int64_t n_out = (end - shape.group_begin) * 16, stride = n_out + shape.out_padding;
    AtPageEnd<float> out(std::vector<float>((shape.n_tokens - 1) * stride + n_out, kUntouched));
    if (int8) {
      Quantized quantized(x, shape.n_tokens, shape.n_cols, shape.x_padding);
      ops(isa).matmul_int8(w, shape.group_begin, end, quantized.rows(), shape.n_tokens, out.data(),
                           stride);
    } else {
      const int64_t x_stride = shape.n_cols + shape.x_padding;
      AtPageEnd<float> in(shape.n_tokens * x_stride - shape.x_padding);
      for (int64_t t = 0; t < shape.n_tokens; ++t) {
        std::copy_n(x.data() + t * shape.n_cols, shape.n_cols, in.data() + t * x_stride);
      }
      ops(isa).matmul_f32(w, shape.group_begin, end, in.data(), x_stride, shape.n_tokens,
                          out.data(), stride);
    }
    return out.values();
  }

  void ExpectAsReference(const FileRows& rows, const Shape& shape) {
    const Packed packed = pack(rows, shape.first_col, shape.n_cols);
    const std::vector<float> x = random_values(shape.n_tokens * shape.n_cols, 7);
    for (const bool int8 : {false, true}) {
      if (int8 && is_float()) continue;
      const std::vector<float> expected = Multiply(Isa::kReference, int8, packed.matrix, shape, x);
      for (const Isa isa : levels_here()) {
        ASSERT_TRUE(same_bits(Multiply(isa, int8, packed.matrix, shape, x), expected))
            << ops(isa).name << (int8 ? " int8" : " f32") << ", rows " << shape.n_rows
            << ", columns " << shape.n_cols << " from " << shape.first_col << ", tokens "
            << shape.n_tokens << ", groups " << shape.group_begin << " to " << shape.group_end;
      }
    }
  }
};

TEST_P(MatmulTest, AnyNumberOfRowsGivesTheReferencesBits) {
  for (int64_t n_rows = 1; n_rows <= 35; ++n_rows) {
    const FileRows rows = random_rows(GetParam(), n_rows, 256, n_rows);
    ExpectAsReference(rows, {.n_rows = n_rows, .first_col = 0, .n_cols = 256, .n_tokens = 2});
  }
}

TEST_P(MatmulTest, AnyNumberOfTokensGivesTheReferencesBits) {
  const FileRows rows = random_rows(GetParam(), 20, 512, 1);
  for (int64_t n_tokens = 1; n_tokens <= 27; ++n_tokens) {
    ExpectAsReference(rows, {.n_rows = 20, .first_col = 32, .n_cols = 416, .n_tokens = n_tokens});
  }
}

TEST_P(MatmulTest, AnyCutOf32ColumnsGivesTheReferencesBits) {
  const FileRows rows = random_rows(GetParam(), 16, 768, 2);
  for (int64_t first = 0; first < 768; first += 32) {
    for (const int64_t n : {int64_t{32}, int64_t{64}, int64_t{256}, int64_t{320}, 768 - first}) {
      if (first + n > 768) continue;
      ExpectAsReference(rows, {.n_rows = 16, .first_col = first, .n_cols = n, .n_tokens = 3});
    }
  }
}

TEST_P(MatmulTest, FloatColumnsMayBeAnyNumber) {
  if (!is_float()) GTEST_SKIP() << "quantized types are cut at 32 columns";
  const FileRows rows = random_rows(GetParam(), 17, 100, 3);
  for (int64_t n = 0; n <= 70; ++n) {
    ExpectAsReference(rows, {.n_rows = 17, .first_col = 3, .n_cols = n, .n_tokens = 5});
  }
}

TEST_P(MatmulTest, RangesOfGroupsAndGapsInTheOutputGiveTheReferencesBits) {
  const FileRows rows = random_rows(GetParam(), 70, 256, 4);  // 5 groups
  for (int64_t begin = 0; begin <= 5; ++begin) {
    for (int64_t end = begin; end <= 5; ++end) {
      for (const int64_t padding : {1, 3, 16}) {
        ExpectAsReference(rows, {70, 0, 256, 4, begin, end, padding});
      }
    }
  }
}

TEST_P(MatmulTest, ColumnsOfWiderActivationsGiveTheReferencesBits) {
  const FileRows rows = random_rows(GetParam(), 20, 256, 14);
  for (const int64_t padding : {32, 256}) {
    for (const int64_t n_tokens : {1, 2, 9, 13}) {
      const Shape wide = {20, 64, 96, n_tokens, 0, -1, 0, padding};
      ExpectAsReference(rows, wide);
      const Packed packed = pack(rows, 64, 96);
      const std::vector<float> x = random_values(n_tokens * 96, 15);
      EXPECT_TRUE(same_bits(
          Multiply(Isa::kReference, !is_float(), packed.matrix, wide, x),
          Multiply(Isa::kReference, !is_float(), packed.matrix, {20, 64, 96, n_tokens}, x)));
    }
  }
}

TEST_P(MatmulTest, ATokensOutputsDoNotDependOnTheOthers) {
  const FileRows rows = random_rows(GetParam(), 33, 512, 5);
  const Packed packed = pack(rows, 0, 512);
  const std::vector<float> x = random_values(19 * 512, 8);
  for (const Isa isa : levels_here()) {
    const std::vector<float> together =
        Multiply(isa, !is_float(), packed.matrix, {33, 0, 512, 19}, x);
    for (int64_t t = 0; t < 19; ++t) {
      const std::vector<float> alone = Multiply(isa, !is_float(), packed.matrix, {33, 0, 512, 1},
                                                {x.begin() + t * 512, x.begin() + (t + 1) * 512});
      EXPECT_TRUE(same_bits(alone, {together.begin() + t * 48, together.begin() + (t + 1) * 48}))
          << ops(isa).name << ", token " << t;
    }
  }
}

TEST_P(MatmulTest, NothingButTheOutputsIsWritten) {
  const FileRows rows = random_rows(GetParam(), 32, 256, 6);
  const Packed packed = pack(rows, 0, 256);
  for (const Isa isa : levels_here()) {
    const std::vector<float> out = Multiply(isa, !is_float(), packed.matrix,
                                            {32, 0, 256, 9, 0, 2, 5}, random_values(9 * 256, 9));
    for (int64_t t = 0; t < 8; ++t) {
      for (int64_t i = 32; i < 37; ++i) EXPECT_EQ(out[t * 37 + i], kUntouched);
    }
  }
}

TEST_P(MatmulTest, NoColumnsGiveZeros) {
  PackedMatrix w = packed_layout(GetParam(), 20, 0, 0);
  for (const Isa isa : levels_here()) {
    EXPECT_EQ(Multiply(isa, !is_float(), w, {20, 0, 0, 3}, {}), std::vector<float>(3 * 32, 0.0f));
  }
}

// Each fma errs by half an ulp of a partial sum, which is at most `magnitude`, the sum of the
// products' magnitudes; the f32 product of two scales by as much of its block's part.
double rounding_bound(int64_t n_roundings, double magnitude) {
  return (static_cast<double>(n_roundings) + 1) * kRounding * magnitude * 1.001;
}

TEST_P(MatmulTest, ReferenceWithF32ActivationsIsTheExactSumWithinItsRoundings) {
  const FileRows rows = random_rows(GetParam(), 16, 512, 10);
  const Packed packed = pack(rows, 0, 512);
  const std::vector<float> x = random_values(512, 11);
  std::vector<double> exact(16), tolerance(16), magnitude(16);
  for (int64_t b = 0; b < 16; ++b) {
    float values[32][16];
    unpack_block(packed.matrix, 0, b, values);
    for (int k = 0; k < 32; ++k) {
      for (int row = 0; row < 16; ++row) {
        const double product = double{values[k][row]} * x[b * 32 + k];
        exact[row] += product;
        magnitude[row] += std::abs(product);
      }
    }
  }
  for (int row = 0; row < 16; ++row) tolerance[row] = rounding_bound(512, magnitude[row]);
  const std::vector<float> actual =
      Multiply(Isa::kReference, false, packed.matrix, {16, 0, 512, 1}, x);
  EXPECT_TRUE(within(actual, exact, tolerance));
}

TEST_P(MatmulTest, ReferenceWithInt8ActivationsIsTheExactSumWithinItsRoundings) {
  if (is_float()) GTEST_SKIP() << "float weights take f32 activations";
  const FileRows rows = random_rows(GetParam(), 16, 512, 12);
  const Packed packed = pack(rows, 0, 512);
  const std::vector<float> x = random_values(512, 13);
  Quantized quantized(x, 1, 512);
  const QuantizedRows a = quantized.rows();
  std::vector<double> exact(16), tolerance(16);
  for (int row = 0; row < 16; ++row) {
    double magnitude = 0;
    for (int64_t b = 0; b < 16; ++b) {
      const RowBlock w = read_row_block(packed.matrix, 0, b, row);
      for (int k = 0; k < 32; ++k) {
        const double scaled = double{w.scale} * w.sub_scale[k / 16] * w.q[k];
        const double activation = double{a.scale[b]} * a.q[b * 32 + k];
        exact[row] += (scaled - w.min) * activation;
        magnitude += (std::abs(scaled) + std::abs(w.min)) * std::abs(activation);
      }
    }
    tolerance[row] = rounding_bound(2 * 16, magnitude);  // at most 2 fmas a block
  }
  const std::vector<float> actual =
      Multiply(Isa::kReference, true, packed.matrix, {16, 0, 512, 1}, x);
  EXPECT_TRUE(within(actual, exact, tolerance));
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTest, testing::ValuesIn(all_types()), type_name);

}  // namespace
}  // namespace thermocline::kernels
