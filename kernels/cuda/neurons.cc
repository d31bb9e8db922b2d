// Packs ffn_down and ffn_down_t by neurons for a device (see neurons.h).
#include "kernels/cuda/neurons.h"

#include <cstring>

#include "common/util/check.h"
#include "kernels/file_block.h"
#include "kernels/neurons.h"

namespace thermocline::kernels {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t n_bytes) { return (n_bytes + kAlignment - 1) / kAlignment * kAlignment; }

int HighBits(TensorType type) {
  return type == TensorType::kQ5_K ? 1 : type == TensorType::kQ6_K ? 2 : 0;
}

int64_t QuantBytes(const DeviceNeurons& m) {  // of a row
  const TypeInfo* info = type_info(m.type);
  if (info->is_float) return m.n_cols * info->block_bytes;
  return m.type == TensorType::kQ8_0 ? m.n_cols : m.n_cols / 2;
}
int64_t HighBytes(const DeviceNeurons& m) { return m.n_cols / 8 * HighBits(m.type); }
int64_t PlaneBytes(const DeviceNeurons& m) {  // as many as the CPU's
  return neuron_layout(m.type, 0, 1, m.n_cols).plane_bytes;
}
int64_t AllScaleBytes(const DeviceNeurons& m) {
  if (m.has_planes) return m.n_blocks * PlaneBytes(m);
  return type_info(m.type)->is_float ? 0 : m.n_neurons * (m.n_cols / kBlockCols) * 2;
}

// Of all rows; each part begins where the one before it, rounded up, ends.
struct PartBytes {
  int64_t quants, high, scales, places;
};
PartBytes BytesOf(const DeviceNeurons& m) {
  const int64_t n_places = m.has_planes ? m.n_neurons : 0;
  return {.quants = Aligned(m.n_neurons * QuantBytes(m)),
          .high = Aligned(m.n_neurons * HighBytes(m)),
          .scales = Aligned(AllScaleBytes(m)),
          .places = Aligned(n_places * int64_t{sizeof(int32_t)})};
}

struct Image {
  uint8_t *quants, *high, *scales, *places;
};
Image ImageAt(const DeviceNeurons& m, uint8_t* memory) {
  const PartBytes bytes = BytesOf(m);
  Image image;
  image.quants = memory;
  image.high = image.quants + bytes.quants;
  image.scales = image.high + bytes.high;
  image.places = image.scales + bytes.scales;
  return image;
}

// Columns [first_col, first_col + 32) of a row; quants [32, stride], unsigned.
void PackQuants(const DeviceNeurons& m, const Image& image, int64_t neuron, const uint8_t* quants,
                int64_t stride, int64_t first_col) {
  uint8_t* row = image.quants + neuron * QuantBytes(m);
  if (m.type == TensorType::kQ8_0) {
    for (int64_t c = 0; c < kBlockCols; ++c) row[first_col + c] = quants[c * stride] ^ 0x80;
    return;
  }
  for (int64_t c = 0; c < kBlockCols; c += 2) {
    const uint8_t low = quants[c * stride] & 15, high = quants[(c + 1) * stride] & 15;
    row[(first_col + c) / 2] = static_cast<uint8_t>(low | high << 4);
  }
  const int n_bits = HighBits(m.type);
  if (n_bits == 0) return;
  uint8_t* high = image.high + neuron * HighBytes(m) + first_col / 8 * n_bits;
  std::memset(high, 0, static_cast<size_t>(4 * n_bits));
  for (int64_t c = 0; c < kBlockCols; ++c) {
    high[c * n_bits / 8] |= static_cast<uint8_t>(quants[c * stride] >> 4 << c * n_bits % 8);
  }
}

void StoreU16(uint8_t* p, uint16_t v) { std::memcpy(p, &v, sizeof(v)); }

// A block of 32 columns of the file, of a float type.
void PackFloats(const DeviceNeurons& m, const Image& image, const int32_t neuron[32],
                const uint8_t* block, int64_t file_row_bytes) {
  const auto size = static_cast<size_t>(type_info(m.type)->block_bytes);
  for (int64_t col = 0; col < m.n_cols; ++col) {
    const uint8_t* from = block + col * file_row_bytes;
    for (int i = 0; i < kBlockCols; ++i) {
      if (neuron[i] < 0) continue;
      std::memcpy(image.quants + (neuron[i] * m.n_cols + col) * size, from + i * size, size);
    }
  }
}

}  // namespace

DeviceNeurons device_transposed_layout(TensorType type, int64_t n_neurons, int64_t n_cols) {
  THERMOCLINE_CHECK(is_transposed_type(type) && n_cols % kBlockCols == 0);
  return {.type = type, .n_neurons = n_neurons, .n_cols = n_cols};
}

DeviceNeurons device_neuron_layout(TensorType type, int64_t n_neurons, int64_t n_blocks,
                                   int64_t n_cols) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n_cols % kBlockCols == 0);
  return {.type = type,
          .has_planes = !info->is_float,
          .n_neurons = n_neurons,
          .n_blocks = info->is_float ? 0 : n_blocks,
          .n_cols = n_cols};
}

int64_t device_neuron_bytes(const DeviceNeurons& neurons) {
  const PartBytes bytes = BytesOf(neurons);
  return bytes.quants + bytes.high + bytes.scales + bytes.places;
}

void place_device_neurons(const uint8_t* memory, DeviceNeurons* neurons) {
  const Image image = ImageAt(*neurons, const_cast<uint8_t*>(memory));
  neurons->quants = image.quants;
  neurons->high = image.high;
  neurons->scales = image.scales;
  neurons->places = neurons->has_planes ? reinterpret_cast<const int32_t*>(image.places) : nullptr;
}

void pack_device_transposed_row(const DeviceNeurons& layout, int64_t neuron,
                                const uint8_t* file_row, uint8_t* memory) {
  const Image image = ImageAt(layout, memory);
  if (type_info(layout.type)->is_float) {
    const int64_t n_bytes = QuantBytes(layout);
    std::memcpy(image.quants + neuron * n_bytes, file_row, static_cast<size_t>(n_bytes));
    return;
  }
  const int64_t n_blocks = layout.n_cols / kBlockCols;
  for (int64_t b = 0; b < n_blocks; ++b) {
    const FileBlock block = read_file_block(layout.type, file_row, b);
    uint8_t quants[kBlockCols];
    std::memcpy(quants, block.chunk, sizeof(quants));
    PackQuants(layout, image, neuron, quants, 1, b * kBlockCols);
    StoreU16(image.scales + 2 * (neuron * n_blocks + b), block.d);
  }
}

void pack_device_neuron_block(const DeviceNeurons& layout, int64_t block, const int32_t neuron[32],
                              const uint8_t* file, int64_t file_row_bytes, int64_t file_block,
                              uint8_t* memory) {
  const Image image = ImageAt(layout, memory);
  const TypeInfo* info = type_info(layout.type);
  if (info->is_float) {
    PackFloats(layout, image, neuron, file + file_block * kBlockCols * info->block_bytes,
               file_row_bytes);
    return;
  }
  for (int32_t i = 0; i < kBlockCols; ++i) {
    if (neuron[i] < 0) continue;
    const int32_t place = static_cast<int32_t>(block * kBlockCols) + i;
    std::memcpy(image.places + neuron[i] * sizeof(place), &place, sizeof(place));
  }
  uint8_t* plane = image.scales + block * PlaneBytes(layout);
  for (int64_t first = 0; first < layout.n_cols; first += kBlockCols) {
    uint8_t quants[kBlockCols][kBlockCols];  // [column][neuron]
    for (int64_t i = 0; i < kBlockCols; ++i) {
      const FileBlock from =
          read_file_block(layout.type, file + (first + i) * file_row_bytes, file_block);
      std::memcpy(quants[i], from.chunk, sizeof(quants[i]));
      pack_scale_column(layout.type, layout.n_cols, from, first + i, plane);
    }
    for (int i = 0; i < kBlockCols; ++i) {
      if (neuron[i] < 0) continue;
      PackQuants(layout, image, neuron[i], &quants[0][i], kBlockCols, first);
    }
  }
}

}  // namespace thermocline::kernels
