// Random blocks of every computed type, with scales that keep values near a wanted magnitude.
#include <bit>
#include <cstring>
#include <random>

#include "common/gguf/half.h"
#include "common/util/check.h"
#include "tests/testing/gguf_builder.h"

namespace thermocline::testing {
namespace {

// The generator's numbers are fixed by the standard; distributions are not, so none is used.
class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}
  float Uniform() { return static_cast<float>(generator_() >> 8) * 0x1p-23f - 1; }  // [-1, 1)
  uint8_t Byte() { return static_cast<uint8_t>(generator_() >> 24); }
  // A scale for quants up to `quant_max`, as f16, varying by a factor of 2.
  uint16_t Scale(float amplitude, float quant_max) {
    return f32_to_f16(amplitude / quant_max * (0.75f + 0.25f * Uniform()));
  }
  void Fill(void* data, size_t n_bytes) {
    uint8_t* bytes = static_cast<uint8_t*>(data);
    for (size_t i = 0; i < n_bytes; ++i) bytes[i] = Byte();
  }

 private:
  std::mt19937 generator_;
};

float RandomBlock(float amplitude, Random* random, float*) { return amplitude * random->Uniform(); }

struct F16 {
  uint16_t bits;
};
F16 RandomBlock(float amplitude, Random* random, F16*) {
  return {f32_to_f16(amplitude * random->Uniform())};
}

struct BF16 {
  uint16_t bits;
};
BF16 RandomBlock(float amplitude, Random* random, BF16*) {
  const float value = amplitude * random->Uniform();
  return {static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16)};
}

BlockQ4_0 RandomBlock(float amplitude, Random* random, BlockQ4_0*) {
  BlockQ4_0 block;
  block.d = random->Scale(amplitude, 8);
  random->Fill(block.qs, sizeof(block.qs));
  return block;
}

BlockQ8_0 RandomBlock(float amplitude, Random* random, BlockQ8_0*) {
  BlockQ8_0 block;
  block.d = random->Scale(amplitude, 127);
  random->Fill(block.qs, sizeof(block.qs));
  return block;
}

BlockQ4_K RandomBlock(float amplitude, Random* random, BlockQ4_K*) {
  BlockQ4_K block;
  block.d = random->Scale(amplitude, 63 * 8);
  block.dmin = random->Scale(amplitude, 63);
  random->Fill(block.scales, sizeof(block.scales));
  random->Fill(block.qs, sizeof(block.qs));
  return block;
}

BlockQ5_K RandomBlock(float amplitude, Random* random, BlockQ5_K*) {
  BlockQ5_K block;
  block.d = random->Scale(amplitude, 63 * 16);
  block.dmin = random->Scale(amplitude, 63);
  random->Fill(block.scales, sizeof(block.scales));
  random->Fill(block.qh, sizeof(block.qh));
  random->Fill(block.qs, sizeof(block.qs));
  return block;
}

BlockQ6_K RandomBlock(float amplitude, Random* random, BlockQ6_K*) {
  BlockQ6_K block;
  block.d = random->Scale(amplitude, 32 * 128);
  random->Fill(block.ql, sizeof(block.ql));
  random->Fill(block.qh, sizeof(block.qh));
  random->Fill(block.scales, sizeof(block.scales));
  return block;
}

template <typename Block>
Bytes Blocks(int64_t n_blocks, float amplitude, uint32_t seed) {
  Random random(seed);
  Bytes bytes(n_blocks * sizeof(Block));
  for (int64_t i = 0; i < n_blocks; ++i) {
    const Block block = RandomBlock(amplitude, &random, static_cast<Block*>(nullptr));
    std::memcpy(bytes.data() + i * sizeof(Block), &block, sizeof(Block));
  }
  return bytes;
}

}  // namespace

Bytes RandomBlocks(TensorType type, int64_t n, float amplitude, uint32_t seed) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && n % info->block_size == 0);
  const int64_t n_blocks = n / info->block_size;
  switch (type) {
    case TensorType::kF32:
      return Blocks<float>(n_blocks, amplitude, seed);
    case TensorType::kF16:
      return Blocks<F16>(n_blocks, amplitude, seed);
    case TensorType::kBF16:
      return Blocks<BF16>(n_blocks, amplitude, seed);
    case TensorType::kQ4_0:
      return Blocks<BlockQ4_0>(n_blocks, amplitude, seed);
    case TensorType::kQ8_0:
      return Blocks<BlockQ8_0>(n_blocks, amplitude, seed);
    case TensorType::kQ4_K:
      return Blocks<BlockQ4_K>(n_blocks, amplitude, seed);
    case TensorType::kQ5_K:
      return Blocks<BlockQ5_K>(n_blocks, amplitude, seed);
    case TensorType::kQ6_K:
      return Blocks<BlockQ6_K>(n_blocks, amplitude, seed);
  }
  return {};
}

}  // namespace thermocline::testing
