// ffn_down by neurons in device memory, from a random file, and what the file says it is worth. No
// judge of any op is here.
#pragma once

#include <vector>

#include "common/gguf/dequantize.h"
#include "tests/kernels/cuda/device_testing.h"
#include "tests/kernels/packed_testing.h"

namespace thermocline::kernels::testing {

inline constexpr int64_t kFileNeurons = 512;  // d_ff

struct NeuronLayout {
  TensorType type;
  bool is_transposed;  // ffn_down_t
};
inline std::vector<NeuronLayout> AllNeuronLayouts() {
  std::vector<NeuronLayout> layouts;
  for (const TensorType type : all_types()) {
    layouts.push_back({type, false});
    if (is_transposed_type(type)) layouts.push_back({type, true});
  }
  return layouts;
}

// The neurons whose number leaves a rest below `of_7` when divided by 7.
inline std::vector<int32_t> SomeNeurons(int of_7) {
  std::vector<int32_t> neurons;
  for (int32_t i = 0; i < kFileNeurons; ++i) {
    if (i % 7 < of_7) neurons.push_back(i);
  }
  return neurons;
}

// The host's image of neurons that lie one after another, and their shape.
struct NeuronImage {
  DeviceNeurons layout;
  std::vector<uint8_t> bytes;
};

inline NeuronImage PackTransposed(const FileRows& file, const std::vector<int32_t>& neurons,
                                  int64_t n_cols) {
  NeuronImage image;
  image.layout = device_transposed_layout(file.type, std::ssize(neurons), n_cols);
  image.bytes.assign(device_neuron_bytes(image.layout), 0xff);
  for (size_t i = 0; i < neurons.size(); ++i) {
    pack_device_transposed_row(image.layout, static_cast<int64_t>(i), file.row(neurons[i]),
                               image.bytes.data());
  }
  return image;
}

inline NeuronImage PackStock(const FileRows& file, const std::vector<int32_t>& neurons,
                             int64_t n_cols) {
  std::vector<int32_t> row_of(kFileNeurons, -1), blocks;  // that have a neuron
  for (size_t i = 0; i < neurons.size(); ++i) {
    row_of[neurons[i]] = static_cast<int32_t>(i);
    if (blocks.empty() || blocks.back() != neurons[i] / 32) blocks.push_back(neurons[i] / 32);
  }
  NeuronImage image;
  image.layout = device_neuron_layout(file.type, std::ssize(neurons), std::ssize(blocks), n_cols);
  image.bytes.assign(device_neuron_bytes(image.layout), 0xff);
  for (size_t b = 0; b < blocks.size(); ++b) {
    pack_device_neuron_block(image.layout, static_cast<int64_t>(b), row_of.data() + blocks[b] * 32,
                             file.bytes.data(), file.row_bytes, blocks[b], image.bytes.data());
  }
  return image;
}

struct RandomNeurons {
  NeuronImage image;
  std::vector<float> weights;  // [n_neurons, n_cols]
};

inline RandomNeurons MakeNeurons(const NeuronLayout& layout, const std::vector<int32_t>& neurons,
                                 int64_t n_cols) {
  const int64_t n_rows = layout.is_transposed ? kFileNeurons : n_cols;
  const int64_t row_values = layout.is_transposed ? n_cols : kFileNeurons;
  const FileRows file = random_rows(layout.type, n_rows, row_values, 1);
  RandomNeurons random;
  random.image = layout.is_transposed ? PackTransposed(file, neurons, n_cols)
                                      : PackStock(file, neurons, n_cols);
  std::vector<float> values(n_rows * row_values);
  dequantize(layout.type, file.bytes.data(), std::ssize(values), values.data());
  random.weights.resize(std::ssize(neurons) * n_cols);
  for (size_t i = 0; i < neurons.size(); ++i) {
    for (int64_t col = 0; col < n_cols; ++col) {
      const int64_t at =
          layout.is_transposed ? neurons[i] * n_cols + col : col * kFileNeurons + neurons[i];
      random.weights[static_cast<int64_t>(i) * n_cols + col] = values[at];
    }
  }
  return random;
}

}  // namespace thermocline::kernels::testing
