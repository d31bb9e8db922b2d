// Where the floating-point numbers of a block lie, and whether their exponents are all ones.
#include "common/gguf/finite.h"

#include <cstddef>
#include <cstring>

#include "common/util/check.h"

namespace thermocline {
namespace {

constexpr uint16_t kF16Exponent = 0x7c00, kBF16Exponent = 0x7f80;
constexpr uint32_t kF32Exponent = 0x7f800000;

template <typename Bits>
bool IsFinite(const uint8_t* at, Bits exponent) {
  Bits bits;
  std::memcpy(&bits, at, sizeof(bits));
  return (bits & exponent) != exponent;
}

// `at`: where in a block its numbers lie.
template <typename Bits, typename... At>
int64_t First(absl::Span<const uint8_t> blocks, const TypeInfo& info, Bits exponent, At... at) {
  for (size_t i = 0; i < blocks.size(); i += info.block_bytes) {
    if ((IsFinite(blocks.data() + i + at, exponent) && ...)) continue;
    return static_cast<int64_t>(i / info.block_bytes) * info.block_size;
  }
  return -1;
}

}  // namespace

int64_t FirstNotFinite(TensorType type, absl::Span<const uint8_t> blocks) {
  const TypeInfo* info = type_info(type);
  THERMOCLINE_CHECK(info != nullptr && blocks.size() % info->block_bytes == 0);
  switch (type) {
    case TensorType::kF32:
      return First(blocks, *info, kF32Exponent, 0);
    case TensorType::kF16:
      return First(blocks, *info, kF16Exponent, 0);
    case TensorType::kBF16:
      return First(blocks, *info, kBF16Exponent, 0);
    case TensorType::kQ4_0:
      return First(blocks, *info, kF16Exponent, offsetof(BlockQ4_0, d));
    case TensorType::kQ8_0:
      return First(blocks, *info, kF16Exponent, offsetof(BlockQ8_0, d));
    case TensorType::kQ4_K:
      return First(blocks, *info, kF16Exponent, offsetof(BlockQ4_K, d), offsetof(BlockQ4_K, dmin));
    case TensorType::kQ5_K:
      return First(blocks, *info, kF16Exponent, offsetof(BlockQ5_K, d), offsetof(BlockQ5_K, dmin));
    case TensorType::kQ6_K:
      return First(blocks, *info, kF16Exponent, offsetof(BlockQ6_K, d));
  }
  THERMOCLINE_CHECK(false);
}

}  // namespace thermocline
