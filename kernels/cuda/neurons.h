// How ffn_down by neurons lies in device memory, and how a file's rows or blocks are brought into
// it on the host. No arithmetic on activations (device_ops.h), no device calls. The CPU's:
// ../neurons.h.
#pragma once

#include <cstdint>

#include "common/gguf/tensor_type.h"

namespace thermocline::kernels {

// What a neuron adds lies in one row, the file's integers beside each other, unsigned as in
// packed.h but Q8_0's, which are signed; scales of a block of 32 neurons in a plane where the file
// has them so.
//   quants  [n_neurons, n_cols]: i8 (Q8_0), nibbles two columns a byte (low: even), values (float)
//   high    [n_neurons, n_cols / 8] bits (Q5_K), [n_neurons, n_cols / 4] pairs of bits (Q6_K): the
//           first column in the lowest bits
//   scales  stock: [n_blocks, plane_bytes], the planes of ../neurons.h; PowerInfer's ffn_down_t
//           (Q8_0, Q4_0): f16 [n_neurons, n_cols / 32]
struct DeviceNeurons {
  const uint8_t* quants = nullptr;
  const uint8_t* high = nullptr;
  const uint8_t* scales = nullptr;
  const int32_t* places = nullptr;  // [n_neurons]: 32 * block + place in it; stock quantized types
  TensorType type = TensorType::kF32;
  bool has_planes = false;
  int64_t n_neurons = 0;
  int64_t n_blocks = 0;
  int64_t n_cols = 0;  // a multiple of 32
};

// The shape; pointers are null. Transposed: of the types that is_transposed_type names. n_blocks,
// of 32 neurons in the file with one here, is used where there are planes.
DeviceNeurons device_transposed_layout(TensorType type, int64_t n_neurons, int64_t n_cols);
DeviceNeurons device_neuron_layout(TensorType type, int64_t n_neurons, int64_t n_blocks,
                                   int64_t n_cols);

// Of quants, high, scales and places, each rounded up to 256.
int64_t device_neuron_bytes(const DeviceNeurons& neurons);
// Sets the pointers of what lies at `memory`, 256-byte aligned.
void place_device_neurons(const uint8_t* memory, DeviceNeurons* neurons);

// Both write to `memory`, the host's image of device_neuron_bytes.
// Row `neuron` from a row of ffn_down_t in the file.
void pack_device_transposed_row(const DeviceNeurons& layout, int64_t neuron,
                                const uint8_t* file_row, uint8_t* memory);
// All that is taken from file_block, a block of 32 columns of ffn_down [n_cols, file's neurons]:
// `file` points at its row 0, rows are file_row_bytes apart. neuron[i] is the row where column i of
// the block goes, or -1; `block` is the number of its planes.
void pack_device_neuron_block(const DeviceNeurons& layout, int64_t block, const int32_t neuron[32],
                              const uint8_t* file, int64_t file_row_bytes, int64_t file_block,
                              uint8_t* memory);

}  // namespace thermocline::kernels
