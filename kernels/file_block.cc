// The blocks of each quantized type, taken apart.
#include "kernels/file_block.h"

#include <cstddef>
#include <cstring>

#include "common/util/check.h"

namespace thermocline::kernels {
namespace {

uint32_t load_u32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
uint16_t load_u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

void read_q8_0(const uint8_t* p, FileBlock* block) {
  for (int c = 0; c < 8; ++c) {  // + 128 in each byte
    block->chunk[c] = load_u32(p + offsetof(BlockQ8_0, qs) + 4 * c) ^ 0x80808080u;
  }
  block->d = load_u16(p + offsetof(BlockQ8_0, d));
}

void read_q4_0(const uint8_t* p, FileBlock* block) {
  for (int c = 0; c < 8; ++c) {
    block->chunk[c] = load_u32(p + offsetof(BlockQ4_0, qs) + c % 4 * 4) >> c / 4 * 4 & 0x0f0f0f0fu;
  }
  block->d = load_u16(p + offsetof(BlockQ4_0, d));
}

// 6-bit scales and minimums of Q4_K and Q5_K: of sub-blocks 0..3 in bytes 0..3 and 4..7, of 4..7 in
// the nibbles of bytes 8..11 and, their top 2 bits, in the top bits of bytes 0..7.
void read_sub_scales(const uint8_t* s, int sub, FileBlock* block) {
  if (sub < 4) {
    block->sub[0] = s[sub] & 63;
    block->sub[1] = s[sub + 4] & 63;
  } else {
    block->sub[0] = static_cast<uint8_t>((s[sub + 4] & 15) | s[sub - 4] >> 6 << 4);
    block->sub[1] = static_cast<uint8_t>(s[sub + 4] >> 4 | s[sub] >> 6 << 4);
  }
}

void read_q4_k(const uint8_t* p, int sub, FileBlock* block) {
  const uint8_t* qs = p + offsetof(BlockQ4_K, qs) + sub / 2 * 32;
  for (int c = 0; c < 8; ++c) block->chunk[c] = load_u32(qs + 4 * c) >> sub % 2 * 4 & 0x0f0f0f0fu;
  read_sub_scales(p + offsetof(BlockQ4_K, scales), sub, block);
  block->d = load_u16(p + offsetof(BlockQ4_K, d));
  block->dmin = load_u16(p + offsetof(BlockQ4_K, dmin));
}

void read_q5_k(const uint8_t* p, int sub, FileBlock* block) {
  const uint8_t* qs = p + offsetof(BlockQ5_K, qs) + sub / 2 * 32;
  const uint8_t* qh = p + offsetof(BlockQ5_K, qh);
  for (int c = 0; c < 8; ++c) {
    const uint32_t low = load_u32(qs + 4 * c) >> sub % 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = load_u32(qh + 4 * c) >> sub & 0x01010101u;
    block->chunk[c] = low | high << 4;
  }
  read_sub_scales(p + offsetof(BlockQ5_K, scales), sub, block);
  block->d = load_u16(p + offsetof(BlockQ5_K, d));
  block->dmin = load_u16(p + offsetof(BlockQ5_K, dmin));
}

// Sub-blocks 0..3 share 64 bytes of ql (32 bytes each for the even and the odd, low nibbles, then
// high ones) and 32 of qh (2 bits each); 4..7 alike.
void read_q6_k(const uint8_t* p, int sub, FileBlock* block) {
  const uint8_t* ql = p + offsetof(BlockQ6_K, ql) + sub / 4 * 64 + sub % 2 * 32;
  const uint8_t* qh = p + offsetof(BlockQ6_K, qh) + sub / 4 * 32;
  for (int c = 0; c < 8; ++c) {
    const uint32_t low = load_u32(ql + 4 * c) >> sub % 4 / 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = load_u32(qh + 4 * c) >> sub % 4 * 2 & 0x03030303u;
    block->chunk[c] = low | high << 4;
  }
  std::memcpy(block->sub, p + offsetof(BlockQ6_K, scales) + 2 * sub, 2);
  block->d = load_u16(p + offsetof(BlockQ6_K, d));
}

}  // namespace

uint32_t FileBlock::plane_dword(int width, int position, int i) const {
  const int per_dword = 8 / width;
  const uint32_t mask = ((1u << width) - 1) * 0x01010101u;
  uint32_t dword = 0;
  for (int j = 0; j < per_dword; ++j) {  // 4 bits: chunks i and i + 4; others: neighbours
    const int c = width == 4 ? i + 4 * j : i * per_dword + j;
    dword |= (chunk[c] >> position & mask) << j * width;
  }
  return dword;
}

FileBlock read_file_block(TensorType type, const uint8_t* row, int64_t b) {
  const TypeInfo* info = type_info(type);
  const int64_t blocks = info->block_size / 32;  // 1, or 8 in a super-block
  const uint8_t* p = row + b / blocks * info->block_bytes;
  const int sub = static_cast<int>(b % blocks);
  FileBlock block = {};
  switch (type) {
    case TensorType::kQ8_0:
      read_q8_0(p, &block);
      break;
    case TensorType::kQ4_0:
      read_q4_0(p, &block);
      break;
    case TensorType::kQ4_K:
      read_q4_k(p, sub, &block);
      break;
    case TensorType::kQ5_K:
      read_q5_k(p, sub, &block);
      break;
    case TensorType::kQ6_K:
      read_q6_k(p, sub, &block);
      break;
    default:
      THERMOCLINE_CHECK(false);  // float types have no blocks
  }
  return block;
}

}  // namespace thermocline::kernels
