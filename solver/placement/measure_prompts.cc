// Times small products and small pieces of packing.
#include "solver/placement/measure_prompts.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/cuda/matrix.h"
#include "kernels/cuda/neurons.h"
#include "kernels/ops.h"

namespace thermocline {
namespace {

using kernels::kGroupRows;

constexpr TensorType kType = TensorType::kQ4_K;
// The weights of a product take 150 kB and its tokens as much: the second cache.
constexpr int64_t kCols = 2048, kRows = 128, kTokens = 64;
constexpr int64_t kNeurons = 32, kFileNeurons = 256;
constexpr std::chrono::milliseconds kTime(15);

// The median of what `run` takes, in seconds.
double SecondsOf(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  const Clock::time_point end = Clock::now() + kTime;
  while (seconds.size() < 3 || Clock::now() < end) {
    const Clock::time_point start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  const auto middle = seconds.begin() + std::ssize(seconds) / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

double Gmacs() {
  kernels::PackedMatrix weights = kernels::packed_layout(kType, kRows, 0, kCols);
  constexpr int64_t kAlignment = 64;
  std::vector<uint8_t> memory(weights.n_bytes() + kAlignment);
  const auto at = reinterpret_cast<uintptr_t>(memory.data());
  weights.data = memory.data() + (kAlignment - at % kAlignment) % kAlignment;
  const std::vector<int8_t> q(kTokens * kCols, 3);
  const std::vector<float> scale(kTokens * kCols / 32, 0.01f);
  const std::vector<int32_t> sum(kTokens * kCols / 32, 96);
  std::vector<float> out(kTokens * kRows);
  const kernels::Ops& ops = kernels::ops(kernels::detect_isa());
  const double seconds = SecondsOf([&] {
    ops.matmul_int8(weights, 0, kRows / kGroupRows, {q.data(), scale.data(), sum.data(), kCols},
                    kTokens, out.data(), kRows);
  });
  return static_cast<double>(kRows * kCols * kTokens) / seconds / 1e9;
}

// Neurons of one block of the file, as most are: gate, up and down.
double PackGbps() {
  const kernels::DeviceMatrix rows = kernels::device_layout(kType, 2 * kNeurons, 0, kCols);
  const kernels::DeviceNeurons down = kernels::device_neuron_layout(kType, kNeurons, 1, kCols);
  const TypeInfo* type = type_info(kType);
  const auto bytes_of = [&](int64_t n) { return n / type->block_size * type->block_bytes; };
  const std::vector<uint8_t> file(
      std::max(bytes_of(2 * kNeurons * kCols), bytes_of(kCols * kFileNeurons)), 1);
  int32_t places[kNeurons];
  for (int32_t i = 0; i < kNeurons; ++i) places[i] = i;
  std::vector<uint8_t> matrix(kernels::device_matrix_bytes(rows));
  std::vector<uint8_t> neurons(kernels::device_neuron_bytes(down));
  const double seconds = SecondsOf([&] {
    for (int64_t row = 0; row < rows.n_rows; ++row) {
      kernels::pack_device_row(rows, 0, row, file.data() + bytes_of(row * kCols), matrix.data());
    }
    kernels::pack_device_neuron_block(down, 0, places, file.data(), bytes_of(kFileNeurons), 0,
                                      neurons.data());
  });
  return static_cast<double>(matrix.size() + neurons.size()) / seconds / 1e9;
}

}  // namespace

PromptRates MeasurePromptRates() { return {Gmacs(), PackGbps()}; }

}  // namespace thermocline
