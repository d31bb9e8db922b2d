// That ffn_down by neurons keeps the contract of numbers (neurons.h, ops.h): what active neurons
// add has the bits of the packed matrix's product, whoever holds which neurons, at every level.
#include "kernels/neurons.h"

#include <gtest/gtest.h>

#include <functional>

#include "common/gguf/dequantize.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels {
namespace {

constexpr float kUntouched = 12345.0f;
constexpr int64_t kNeurons = 512;  // d_ff

// Neurons of ffn_down, in memory that ends where they end.
struct Down {
  NeuronMatrix matrix;
  AtPageEnd<uint8_t> rows, planes;
  std::vector<int32_t> row_of;    // [d_ff], -1: not here
  std::vector<int32_t> block_of;  // [d_ff / 32]

  explicit Down(const NeuronMatrix& layout)
      : matrix(layout),
        rows(layout.n_neurons * layout.row_bytes),
        planes(layout.n_blocks * layout.plane_bytes) {
    matrix.rows = rows.data();
    if (layout.has_planes) matrix.planes = planes.data();
  }
};

using Owns = std::function<bool(int64_t neuron)>;
bool everything(int64_t) { return true; }

// `file` is ffn_down, [n_cols, kNeurons].
std::unique_ptr<Down> pack_down(const FileRows& file, const Owns& owns) {
  std::vector<int32_t> row_of(kNeurons, -1), block_of(kNeurons / 32, -1);
  int32_t n_rows = 0, n_blocks = 0;
  for (int64_t neuron = 0; neuron < kNeurons; ++neuron) {
    if (!owns(neuron)) continue;
    row_of[neuron] = n_rows++;
    if (block_of[neuron / 32] < 0) block_of[neuron / 32] = n_blocks++;
  }
  auto down = std::make_unique<Down>(neuron_layout(file.type, n_rows, n_blocks, file.n_rows));
  for (int64_t b = 0; b < kNeurons / 32; ++b) {
    if (block_of[b] < 0) continue;
    pack_neuron_block(down->matrix, block_of[b], row_of.data() + b * 32, file.bytes.data(),
                      file.row_bytes, b);
  }
  down->row_of = row_of;
  down->block_of = block_of;
  return down;
}

// Activations of which about a tenth is not 0, the fourth block none.
std::vector<float> sparse_values(uint32_t seed) {
  std::vector<float> values = random_values(kNeurons, seed);
  for (int64_t i = 0; i < kNeurons; ++i) {
    if (values[i] < 1.28f || i / 32 == 3) values[i] = 0;
  }
  return values;
}

// What add_blocks reads of the activations.
struct Active {
  std::vector<ActiveBlock> blocks;
  std::vector<int32_t> rows;
  std::vector<int8_t> q;

  Active(const Down& down, Quantized& x, bool zeros_too) {
    for (int32_t b = 0; b < kNeurons / 32; ++b) {
      const auto begin = static_cast<int32_t>(std::ssize(rows));
      ActiveBlock block = {down.block_of[b], begin, begin, begin, 0, x.scale.data()[b]};
      for (int32_t i = 0; i < 32; ++i) {
        if (i == 16) block.middle = static_cast<int32_t>(std::ssize(rows));
        const int8_t value = x.q.data()[b * 32 + i];
        const int32_t row = down.row_of[b * 32 + i];
        if (row < 0 || (value == 0 && !zeros_too)) continue;
        rows.push_back(row);
        q.push_back(value);
        block.sum += value;
      }
      block.end = static_cast<int32_t>(std::ssize(rows));
      if (block.end > block.begin) blocks.push_back(block);
    }
  }

  std::vector<float> add(Isa isa, const Down& down, std::vector<float> out, int64_t begin = 0,
                         int64_t end = -1) const {
    const int64_t n_cols = down.matrix.n_cols;
    AtPageEnd<float> sums(out);
    ops(isa).add_blocks(down.matrix, blocks.data(), std::ssize(blocks), rows.data(), q.data(),
                        begin, end < 0 ? n_cols : end, sums.data());
    return sums.values();
  }
};

// The product of the packed matrix with these int8 activations. [n_cols]
std::vector<float> packed_product(const FileRows& file, Quantized& x) {
  const Packed packed = pack(file, 0, kNeurons);
  std::vector<float> out(packed.matrix.n_groups() * 16);
  ops(Isa::kReference)
      .matmul_int8(packed.matrix, 0, packed.matrix.n_groups(), x.rows(), 1, out.data(), 0);
  out.resize(file.n_rows);
  return out;
}

class NeuronsTest : public testing::TestWithParam<TensorType> {
 protected:
  static std::vector<int64_t> column_counts() { return {32, 64, 96, 128, 160, 768, 3200}; }
  static std::vector<float> zeros(int64_t n) { return std::vector<float>(n, 0.0f); }

  // The neurons that `owns` holds give the bits of the packed product in which the others are 0.
  void ExpectBitsOfPacked(int64_t n_cols, const Owns& owns, const std::vector<float>& x,
                          bool zeros_too) {
    const FileRows file = random_rows(GetParam(), n_cols, kNeurons, 1);
    const std::unique_ptr<Down> down = pack_down(file, owns);
    Quantized in(x, 1, kNeurons);
    for (int64_t neuron = 0; neuron < kNeurons; ++neuron) {
      if (owns(neuron)) continue;
      in.sum.data()[neuron / 32] -= in.q.data()[neuron];
      in.q.data()[neuron] = 0;
    }
    const std::vector<float> expected = packed_product(file, in);
    const Active active(*down, in, zeros_too);
    for (const Isa isa : levels_here()) {
      ASSERT_TRUE(same_bits(active.add(isa, *down, zeros(n_cols)), expected))
          << ops(isa).name << ", " << n_cols << " columns";
    }
  }
};

class NeuronBlocksTest : public NeuronsTest {};

TEST_P(NeuronBlocksTest, AllNeuronsGiveTheBitsOfThePackedProduct) {
  for (const int64_t n_cols : column_counts()) {
    ExpectBitsOfPacked(n_cols, everything, random_values(kNeurons, 2), true);
  }
}

TEST_P(NeuronBlocksTest, ActiveNeuronsAloneGiveTheBitsOfThePackedProduct) {
  for (const int64_t n_cols : column_counts()) {
    ExpectBitsOfPacked(n_cols, everything, sparse_values(3), false);
  }
}

TEST_P(NeuronBlocksTest, ScatteredNeuronsGiveTheirSum) {
  const auto every_third = [](int64_t n) { return n % 3 == 1; };
  const auto some_blocks = [](int64_t n) { return n / 32 % 5 == 2; };
  const auto some_of_some = [](int64_t n) { return n / 32 % 4 != 0 && n * 7 % 11 < 4; };
  const auto second_halves = [](int64_t n) { return n % 32 >= 16; };
  for (const Owns& owns : {Owns(every_third), Owns(some_blocks), Owns(some_of_some),
                           Owns(second_halves), Owns([](int64_t n) { return n == 511; })}) {
    for (const int64_t n_cols : {96, 160}) {
      ExpectBitsOfPacked(n_cols, owns, random_values(kNeurons, 4), true);
      ExpectBitsOfPacked(n_cols, owns, sparse_values(5), false);
    }
  }
}

TEST_P(NeuronBlocksTest, CutsOfColumnsChangeNothingAndWriteNothingElse) {
  for (const int64_t n_cols : {160, 768}) {
    const FileRows file = random_rows(GetParam(), n_cols, kNeurons, 6);
    const std::unique_ptr<Down> down = pack_down(file, everything);
    Quantized in(sparse_values(7), 1, kNeurons);
    const Active active(*down, in, false);
    const std::vector<float> start = random_values(n_cols, 8);
    const std::vector<float> whole = active.add(Isa::kReference, *down, start);
    for (const Isa isa : levels_here()) {
      for (int64_t begin = 0; begin < n_cols; begin += 128) {
        for (int64_t end = begin; end != n_cols;) {
          end = std::min(end + 128, n_cols);
          std::vector<float> expected = start;
          std::copy(whole.begin() + begin, whole.begin() + end, expected.begin() + begin);
          ASSERT_TRUE(same_bits(active.add(isa, *down, start, begin, end), expected))
              << ops(isa).name << ", columns " << begin << " to " << end << " of " << n_cols;
        }
      }
    }
  }
}

TEST_P(NeuronBlocksTest, BlocksInSeveralCallsGiveTheBitsOfOne) {
  const FileRows file = random_rows(GetParam(), 160, kNeurons, 9);
  const std::unique_ptr<Down> down = pack_down(file, everything);
  Quantized in(random_values(kNeurons, 10), 1, kNeurons);
  const Active active(*down, in, true);
  for (const Isa isa : levels_here()) {
    std::vector<float> out = zeros(160);
    for (const ActiveBlock& block : active.blocks) {
      Active one = active;
      one.blocks = {block};
      out = one.add(isa, *down, out);
    }
    EXPECT_TRUE(same_bits(out, packed_product(file, in))) << ops(isa).name;
  }
}

TEST_P(NeuronBlocksTest, NoBlocksAddNothing) {
  const std::unique_ptr<Down> down =
      pack_down(random_rows(GetParam(), 160, kNeurons, 11), everything);
  Quantized in(zeros(kNeurons), 1, kNeurons);
  const Active none(*down, in, false);
  ASSERT_TRUE(none.blocks.empty());
  const std::vector<float> start(160, kUntouched);
  for (const Isa isa : levels_here()) EXPECT_EQ(none.add(isa, *down, start), start);
}

TEST_P(NeuronBlocksTest, TakesTheFilesBytesUpToPadding) {
  const NeuronMatrix m = neuron_layout(GetParam(), 1024, 1024 / 32, 4096);
  const TypeInfo& info = *type_info(GetParam());
  const auto file_bytes = static_cast<double>(1024 * 4096 / info.block_size * info.block_bytes);
  // A super-block's f16s stay beside each of its 8 blocks, and 6-bit scales become bytes.
  const double added = GetParam() == TensorType::kQ4_K   ? 176.0 / 144
                       : GetParam() == TensorType::kQ5_K ? 208.0 / 176
                       : GetParam() == TensorType::kQ6_K ? 224.0 / 210
                                                         : 1.0;
  EXPECT_NEAR(static_cast<double>(m.n_bytes()), file_bytes * added, 1.0);
}

std::vector<TensorType> types_where(const std::function<bool(const TypeInfo&)>& holds) {
  std::vector<TensorType> types;
  for (const TypeInfo& info : kTensorTypes) {
    if (holds(info)) types.push_back(info.type);
  }
  return types;
}
INSTANTIATE_TEST_SUITE_P(
    Types, NeuronBlocksTest,
    testing::ValuesIn(types_where([](const TypeInfo& info) { return !info.is_float; })), type_name);

// Each neuron's row, [kNeurons, n_cols]: its own scales, or none.
struct Transposed {
  FileRows file;
  Down down;

  Transposed(TensorType type, int64_t n_cols)
      : file(random_rows(type, kNeurons, n_cols, 12)),
        down(transposed_layout(type, kNeurons, n_cols)) {
    for (int64_t i = 0; i < kNeurons; ++i) pack_transposed_row(down.matrix, i, file.row(i));
  }
};

// One value of a row as factors of the contract: a * first, times second.
struct Factors {
  float first, second;
};
Factors factors_of(const FileRows& file, int64_t row, int64_t col) {
  const uint8_t* at = file.row(row);
  if (file.type == TensorType::kQ8_0) {
    BlockQ8_0 block;
    std::memcpy(&block, at + col / 32 * sizeof(block), sizeof(block));
    return {f16_to_f32(block.d), static_cast<float>(block.qs[col % 32])};
  }
  if (file.type == TensorType::kQ4_0) {
    BlockQ4_0 block;
    std::memcpy(&block, at + col / 32 * sizeof(block), sizeof(block));
    const int q = block.qs[col % 16] >> col % 32 / 16 * 4 & 15;
    return {f16_to_f32(block.d), static_cast<float>(q - 8)};
  }
  float value;
  dequantize(file.type, at + col * type_info(file.type)->block_bytes, 1, &value);
  return {1.0f, value};
}

std::vector<float> add_rows(Isa isa, const Down& down, const std::vector<int32_t>& rows,
                            const std::vector<float>& a, const std::vector<float>& start,
                            int64_t begin = 0, int64_t end = -1) {
  AtPageEnd<float> out(start);
  ops(isa).add_rows(down.matrix, rows.data(), a.data(), std::ssize(rows), begin,
                    end < 0 ? down.matrix.n_cols : end, out.data());
  return out.values();
}

class NeuronRowsTest : public NeuronsTest {
 protected:
  static std::vector<int32_t> scattered(int64_t n) {
    std::vector<int32_t> rows(n);
    for (int64_t i = 0; i < n; ++i) rows[i] = static_cast<int32_t>(i * kNeurons / n);
    return rows;
  }
};

TEST_P(NeuronRowsTest, RowsAddOneFmaEach) {
  for (const int64_t n_cols : column_counts()) {
    const Transposed t(GetParam(), n_cols);
    for (const int64_t n : {0, 1, 7, 8, 9, 25}) {
      const std::vector<int32_t> rows = scattered(n);
      const std::vector<float> a = random_values(n, 13), start = random_values(n_cols, 14);
      std::vector<float> expected = start;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t col = 0; col < n_cols; ++col) {
          const Factors f = factors_of(t.file, rows[i], col);
          expected[col] = std::fma(a[i] * f.first, f.second, expected[col]);
        }
      }
      for (const Isa isa : levels_here()) {
        ASSERT_TRUE(same_bits(add_rows(isa, t.down, rows, a, start), expected))
            << ops(isa).name << ", " << n << " rows, " << n_cols << " columns";
      }
    }
  }
}

TEST_P(NeuronRowsTest, RowsOfZeroChangeNothing) {
  const Transposed t(GetParam(), 160);
  std::vector<int32_t> all(kNeurons), active;
  std::vector<float> a = sparse_values(15), active_a;
  for (int32_t i = 0; i < kNeurons; ++i) {
    all[i] = i;
    if (a[i] == 0) continue;
    active.push_back(i);
    active_a.push_back(a[i]);
  }
  ASSERT_LT(active.size(), all.size() / 5);
  for (const Isa isa : levels_here()) {
    EXPECT_TRUE(same_bits(add_rows(isa, t.down, all, a, zeros(160)),
                          add_rows(isa, t.down, active, active_a, zeros(160))))
        << ops(isa).name;
  }
}

TEST_P(NeuronRowsTest, CutsOfColumnsChangeNothingAndWriteNothingElse) {
  const Transposed t(GetParam(), 352);
  const std::vector<int32_t> rows = scattered(19);
  const std::vector<float> a = random_values(19, 16), start = random_values(352, 17);
  const std::vector<float> whole = add_rows(Isa::kReference, t.down, rows, a, start);
  for (const Isa isa : levels_here()) {
    for (const auto& [begin, end] : {std::pair{0, 128}, {128, 256}, {128, 352}, {256, 352}}) {
      std::vector<float> expected = start;
      std::copy(whole.begin() + begin, whole.begin() + end, expected.begin() + begin);
      EXPECT_TRUE(same_bits(add_rows(isa, t.down, rows, a, start, begin, end), expected))
          << ops(isa).name << ", columns " << begin << " to " << end;
    }
  }
}

TEST_P(NeuronRowsTest, FloatsOfFfnDownGiveTheBitsOfThePackedProduct) {
  if (!type_info(GetParam())->is_float) GTEST_SKIP() << "quantized types take add_blocks";
  for (const int64_t n_cols : {32, 96, 160, 768}) {
    const FileRows file = random_rows(GetParam(), n_cols, kNeurons, 18);
    for (const bool some : {false, true}) {
      const Owns owns = [=](int64_t n) { return !some || (n / 32 % 4 != 0 && n % 3 == 1); };
      const std::unique_ptr<Down> down = pack_down(file, owns);
      std::vector<float> x = random_values(kNeurons, 19), a;
      std::vector<int32_t> rows;
      for (int64_t neuron = 0; neuron < kNeurons; ++neuron) {
        if (!owns(neuron)) {
          x[neuron] = 0;
          continue;
        }
        rows.push_back(down->row_of[neuron]);
        a.push_back(x[neuron]);
      }
      const Packed packed = pack(file, 0, kNeurons);
      std::vector<float> expected(packed.matrix.n_groups() * 16);
      ops(Isa::kReference)
          .matmul_f32(packed.matrix, 0, packed.matrix.n_groups(), x.data(), kNeurons, 1,
                      expected.data(), 0);
      expected.resize(n_cols);
      for (const Isa isa : levels_here()) {
        EXPECT_TRUE(same_bits(add_rows(isa, *down, rows, a, zeros(n_cols)), expected))
            << ops(isa).name << ", " << n_cols << " columns";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, NeuronRowsTest,
                         testing::ValuesIn(types_where([](const TypeInfo& info) {
                           return is_transposed_type(info.type);
                         })),
                         type_name);

}  // namespace
}  // namespace thermocline::kernels
