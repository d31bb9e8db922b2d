// Reads little-endian values out of bytes, never past their end. Knows nothing of formats.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/types/span.h"

namespace thermocline {

static_assert(std::endian::native == std::endian::little);

class ByteCursor {
 public:
  explicit ByteCursor(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  // False, and nothing moves, when fewer bytes are left.
  template <typename T>
  bool Read(T* value) {
    if (remaining() < sizeof(T)) return false;
    std::memcpy(value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }
  bool ReadText(uint64_t n_bytes, std::string* text) {
    if (remaining() < n_bytes) return false;
    text->assign(reinterpret_cast<const char*>(bytes_.data()) + position_, n_bytes);
    position_ += n_bytes;
    return true;
  }

 private:
  absl::Span<const uint8_t> bytes_;
  uint64_t position_ = 0;
};

}  // namespace thermocline
