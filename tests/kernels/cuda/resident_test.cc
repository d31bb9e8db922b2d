// Programs on every device: each form of each op has the bits of its own kernel, steps wait for
// what they read, and what can't be in a program is refused.
#include <cstring>
#include <functional>

#include "tests/kernels/cuda/attend_testing.h"
#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/cuda/neurons_testing.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline::kernels::testing {
namespace {

constexpr int64_t kMaxSteps = 64;

class Resident : public DeviceTest {
 protected:
  // What a call writes, and what was there before.
  class Output {
   public:
    template <typename T>
    T* Add(const std::vector<T>& before) {
      bytes_.emplace_back(reinterpret_cast<const uint8_t*>(before.data()),
                          reinterpret_cast<const uint8_t*>(before.data() + before.size()));
      places_.push_back(device_->Upload(bytes_.back()));
      return reinterpret_cast<T*>(places_.back());
    }
    template <typename T>
    T* Add(int64_t n) {
      return Add(std::vector<T>(n));
    }
    DeviceRows AddRows(int64_t n) {
      return {Add<int8_t>(n), Add<float>(n / 32), Add<int32_t>(n / 32), n};
    }
    // Reads it, and puts back what was there before.
    std::vector<std::vector<uint8_t>> Take() {
      std::vector<std::vector<uint8_t>> after;
      for (size_t i = 0; i < places_.size(); ++i) {
        after.push_back(device_->Download(places_[i], std::ssize(bytes_[i])));
        device_->Overwrite(places_[i], bytes_[i]);
      }
      return after;
    }

   private:
    friend class Resident;
    explicit Output(TestDevice* device) : device_(device) {}
    TestDevice* const device_;
    std::vector<std::vector<uint8_t>> bytes_;
    std::vector<uint8_t*> places_;
  };
  Output MakeOutput() { return Output(device_.get()); }

  // The program that `call` makes.
  void Record(const std::function<LaunchError()>& call) {
    program_ = {.steps = steps_.data(), .max_steps = kMaxSteps};
    stream_->program = &program_;
    EXPECT_EQ(call(), 0);
    stream_->program = nullptr;
  }
  void RunProgram() {
    steps_.resize(kMaxSteps);
    auto* barrier = device_->Upload(std::vector<uint32_t>(1, 0));
    device_->Check(ops_.run_program(stream_, program_, device_->Upload(steps_), barrier));
  }
  void ExpectSameBits(const std::function<LaunchError()>& call, Output* output,
                      const std::string& what) {
    device_->Check(call());
    const auto expected = output->Take();
    Record(call);
    RunProgram();
    EXPECT_TRUE(output->Take() == expected) << what;
  }

  DeviceMatrix Matrix(TensorType type, int64_t n_rows, int64_t n_cols) {
    DeviceMatrix matrix = device_layout(type, n_rows, 0, n_cols);
    const TypeInfo* info = type_info(type);
    const int64_t row_bytes = n_cols / info->block_size * info->block_bytes;
    const auto file = ::thermocline::testing::RandomBlocks(type, n_rows * n_cols, 0.1f, 5);
    std::vector<uint8_t> image(device_matrix_bytes(matrix));
    for (int64_t row = 0; row < n_rows; ++row) {
      pack_device_row(matrix, 0, row, file.data() + row * row_bytes, image.data());
    }
    place_device_matrix(device_->Upload(image), &matrix);
    return matrix;
  }
  DeviceRows Rows(int64_t n, uint32_t seed) {
    const CpuRows rows = QuantizeOnCpu(random_values(n, seed), 1, n, n);
    return {device_->Upload(rows.q), device_->Upload(rows.scale), device_->Upload(rows.sum), n};
  }

  std::vector<ProgramStep> steps_ = std::vector<ProgramStep>(kMaxSteps);
  DeviceProgram program_;
};

TEST_P(Resident, ProductsOfEveryTypeHaveTheBitsOfTheirKernel) {
  constexpr int64_t kRows = 301, kCols = 256;
  const DeviceRows x = Rows(kCols, 1);
  const float* x_f32 = device_->Upload(random_values(kCols, 2));
  const std::vector<int32_t> some = {0, 3, 4, 17, 100, 222, 300};
  const RowList list = {device_->Upload(some), device_->Upload(std::vector<int32_t>(1, 7)), kRows};
  for (const TensorType type : all_types()) {
    const DeviceMatrix w = Matrix(type, kRows, kCols);
    for (const RowList& rows : {RowList(), list}) {
      Output output = MakeOutput();
      float* out = output.Add<float>(kRows);
      ExpectSameBits([&] { return ops_.matmul(stream_, w, rows, x, x_f32, kCols, 1, out, kRows); },
                     &output, type_info(type)->name);
    }
  }
}

TEST_P(Resident, NeuronsOfEveryLayoutHaveTheBitsOfTheirKernels) {
  constexpr int64_t kCols = 288;
  const std::vector<int32_t> neurons = SomeNeurons(3);
  std::vector<float> a = random_values(std::ssize(neurons), 3);
  for (size_t i = 0; i < a.size(); i += 3) a[i] = 0;
  for (const NeuronLayout& layout : AllNeuronLayouts()) {
    const NeuronImage image = MakeNeurons(layout, neurons, kCols).image;
    DeviceNeurons w = image.layout;
    place_device_neurons(device_->Upload(image.bytes), &w);
    Output output = MakeOutput();
    float* out = output.Add<float>(kCols);
    void* workspace = device_->Allocate<uint8_t>(add_neurons_bytes(w.n_neurons, kCols, 1));
    const float* factors = device_->Upload(a);
    ExpectSameBits(
        [&] { return ops_.add_neurons(stream_, w, {}, factors, w.n_neurons, 1, out, workspace); },
        &output, type_info(layout.type)->name);
  }
}

// Groups of query heads of 1, 3, 8 and 16 take different forms; the context has three tiles.
TEST_P(Resident, AttentionHasTheBitsOfItsKernels) {
  for (const DeviceKvType type : {DeviceKvType::kF16, DeviceKvType::kQ8_0}) {
    for (const int32_t group : {1, 3, 8, 16}) {
      const KvShape shape = {type, 1, 2 * kAttendTile + 3, 2 * group, 2, 36};
      const DeviceToken token = {0, static_cast<int32_t>(shape.n_ctx) - 1};
      AttendProblem problem(shape, {token}, 0);
      problem.Fill();
      const int64_t n_q = int64_t{shape.n_heads} * shape.d_head, n_kv = 2 * shape.d_head;
      Output output = MakeOutput();
      float* q = output.Add(problem.q);
      float* out = output.Add<float>(n_q);
      auto* state = output.Add<float>(2 * shape.n_heads);
      DeviceKv kv = Upload(device_.get(), shape, problem.k, problem.v);
      kv.k = output.Add(problem.k.values);
      kv.v = output.Add(problem.v.values);
      const auto* tokens = device_->Upload(problem.tokens);
      const float *k = device_->Upload(random_values(n_kv, 4)),
                  *v = device_->Upload(random_values(n_kv, 5)),
                  *angles = device_->Upload(random_values(shape.d_head / 2, 6));
      void* workspace =
          device_->Allocate<uint8_t>(attend_bytes(1, shape.n_heads, shape.d_head, shape.n_ctx - 1));
      ExpectSameBits(
          [&] {
            const LaunchError error = ops_.rope_store(stream_, q, k, v, angles, angles,
                                                      shape.d_head, tokens, 1, shape.n_heads, kv);
            if (error != 0) return error;
            return ops_.attend(stream_, q, tokens, 1, shape.n_heads, kv, problem.scale, 0,
                               shape.n_ctx - 1, out, state, workspace);
          },
          &output, Name(shape));
    }
  }
}

TEST_P(Resident, OpsOnRowsHaveTheBitsOfTheirKernels) {
  constexpr int64_t kN = 4128;  // more than a block does in one round
  const float *x = device_->Upload(random_values(kN, 1)),
              *y = device_->Upload(random_values(kN, 2));
  const auto expect = [&](const char* what, const auto& call) {
    Output output = MakeOutput();
    float* out = output.Add<float>(kN);
    const DeviceRows rows = output.AddRows(kN);
    ExpectSameBits([&] { return call(out, rows); }, &output, what);
  };
  expect("rms_norm", [&](float* out, const DeviceRows& rows) {
    return ops_.rms_norm(stream_, x, y, 1, kN, 1e-5f, out, rows);
  });
  expect("quantize", [&](float*, const DeviceRows& rows) {
    return ops_.quantize(stream_, x, kN, 1, kN, rows);
  });
  for (const auto gated : {ops_.relu_mul, ops_.silu_mul, ops_.relu_relu_mul}) {
    expect("gated", [&](float* out, const DeviceRows& rows) {
      return gated(stream_, x, y, kN, nullptr, 1, kN - 5, out, rows);
    });
  }
  expect("add", [&](float* out, const DeviceRows&) { return ops_.add(stream_, x, y, kN, out); });
  expect("copy",
         [&](float* out, const DeviceRows&) { return ops_.copy(stream_, x, kN, 1, kN, out, kN); });
  expect("merge_tail", [&](float* out, const DeviceRows&) {
    return ops_.merge_tail(stream_, x, y, 30 * 34, 1, 30, 32, out);
  });
}

TEST_P(Resident, SelectionsHaveTheBitsOfTheirKernels) {
  constexpr int64_t kRows = 9001;
  DeviceSelection selection = {.scores = device_->Upload(random_values(kRows, 7)),
                               .stride = kRows,
                               .n_tokens = 1,
                               .n_rows = kRows};
  Output output = MakeOutput();
  auto* rows = output.Add<int32_t>(kRows);
  auto* n = output.Add<int32_t>(1);
  auto* mask = output.Add<uint8_t>(kRows);
  auto* counts = output.Add<uint64_t>(2);
  auto* bits = output.Add<uint32_t>(kRows / 32 + 1);
  ExpectSameBits(
      [&] {
        const LaunchError error = ops_.select(stream_, selection, rows, n, mask, counts);
        return error != 0 ? error : ops_.select_bits(stream_, selection, bits, 0);
      },
      &output, "selections");
}

// One rank alone: what others leave is exchange_test's matter.
TEST_P(Resident, AnExchangeHasTheBitsOfItsKernel) {
  constexpr int64_t kN = 4100;
  Output output = MakeOutput();
  ExchangeMemory memory;
  memory.abort = device_->Upload(std::vector<uint32_t>(1, 0));
  memory.arrived = output.Add<uint32_t>(1);
  memory.headers = output.Add<PartialHeader>(2);
  memory.partials = output.Add<float>(2 * kN);
  memory.partial_stride = kN;
  memory.n_ranks = 1;
  memory.epoch = 3;
  const auto* step = device_->Upload(std::vector<DeviceStep>(1, {9, 0}));
  const float* partial = device_->Upload(random_values(kN, 8));
  float* h = output.Add(random_values(kN, 9));
  auto* state = output.Add<uint32_t>(1);
  ExpectSameBits(
      [&] { return ops_.exchange(stream_, memory, step, 1, partial, h, kN, state, nullptr); },
      &output, "exchange");
}

// Sums over all of the row before, by other blocks than have written it: h = norm(h + h) and so on.
TEST_P(Resident, StepsSeeWhatOtherBlocksWroteBefore) {
  constexpr int64_t kN = 16384;
  Output output = MakeOutput();
  float* h = output.Add(random_values(kN, 1));
  float* sum = output.Add<float>(kN);
  auto* ns = output.Add<int64_t>(1);
  const float* weight = device_->Upload(random_values(kN, 2));
  const auto steps = [&] {
    for (int i = 0; i < 5; ++i) {
      LaunchError error = ops_.add(stream_, h, h, kN, sum);
      if (error == 0) error = ops_.rms_norm(stream_, sum, weight, 1, kN, 1e-5f, h, {});
      if (error != 0) return error;
    }
    return 0;
  };
  ExpectSameBits(steps, &output, "five rounds");
  Record([&] { return ops_.stamp(stream_, ns); });
  RunProgram();
  EXPECT_GT(device_->Download(ns, 1)[0], 0);
}

TEST_P(Resident, StepsWaitForNoMoreThanTheyMust) {
  constexpr int64_t kLong = 4096, kShort = 32;
  float *a = device_->Allocate<float>(kLong), *b = device_->Allocate<float>(kLong);
  const auto add = [&](int64_t n) { return ops_.add(stream_, a, a, n, b); };
  Record([&] {
    add(kShort);
    add(kShort);
    add(kLong);
    {
      const BesideEachOther beside(stream_);
      add(kLong);
      add(kLong);
      add(kShort);
    }
    add(kShort);
    add(kShort);
    const BesideEachOther beside(stream_);
    add(kShort);
    add(kShort);
    return add(kLong);  // of other blocks, which have waited for none of these
  });
  using enum StepOrder;
  const StepOrder expected[] = {kInBlock, kInBlock, kInGrid,  kInGrid, kBeside, kBeside,
                                kInGrid,  kInBlock, kInBlock, kBeside, kInGrid};
  const int32_t skews[] = {0, 0, 0, 0, 32, 64, 0, 0, 0, 1, 0};
  ASSERT_EQ(program_.n_steps, 11);
  for (int i = 0; i < 11; ++i) {
    EXPECT_EQ(steps_[i].order, expected[i]) << i;
    EXPECT_EQ(steps_[i].skew, skews[i]) << i;
  }
}

TEST_P(Resident, StepsBesideEachOtherHaveTheirBits) {
  constexpr int64_t kCols = 64;
  const DeviceRows x = Rows(kCols, 1);
  Output output = MakeOutput();
  std::vector<DeviceMatrix> matrices;
  std::vector<float*> outs;
  for (const int64_t n_rows : {int64_t{333}, int64_t{10}, int64_t{95}}) {
    matrices.push_back(Matrix(TensorType::kQ8_0, n_rows, kCols));
    outs.push_back(output.Add<float>(n_rows));
  }
  ExpectSameBits(
      [&] {
        const BesideEachOther beside(stream_);
        LaunchError error = 0;
        for (size_t i = 0; i < matrices.size() && error == 0; ++i) {
          error =
              ops_.matmul(stream_, matrices[i], {}, x, nullptr, 0, 1, outs[i], matrices[i].n_rows);
        }
        return error;
      },
      &output, "three products");
}

TEST_P(Resident, AnEmptyProgramDoesNothing) {
  device_->Check(ops_.run_program(stream_, DeviceProgram(), nullptr, nullptr));
}

TEST_P(Resident, WhatHasNoFormForItIsRefused) {
  float* x = device_->Allocate<float>(1024);
  auto* indices = device_->Allocate<int32_t>(1);
  void* workspace = device_->Allocate<uint8_t>(top_k_bytes());
  const DeviceMatrix w = Matrix(TensorType::kF32, 8, 32);
  program_ = {.steps = steps_.data(), .max_steps = 1};
  stream_->program = &program_;
  EXPECT_NE(ops_.top_k(stream_, x, 32, 1, 0, x, indices, x, workspace), 0);
  EXPECT_NE(ops_.matmul(stream_, w, {}, {}, x, 32, 2, x, 8), 0);
  EXPECT_EQ(program_.n_steps, 0);
  EXPECT_EQ(ops_.add(stream_, x, x, 32, x), 0);
  EXPECT_NE(ops_.add(stream_, x, x, 32, x), 0) << "it is full";
  EXPECT_EQ(program_.n_steps, 1);
  stream_->program = nullptr;
}

INSTANTIATE_DEVICE_TESTS(Resident);

}  // namespace
}  // namespace thermocline::kernels::testing
