// Appends little-endian values to bytes, and the numbers of GGUF's value kinds. No file, no checks.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace thermocline {

static_assert(std::endian::native == std::endian::little);

using Bytes = std::vector<uint8_t>;

class ByteWriter {
 public:
  template <typename T>
  ByteWriter& Put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return Append(&value, sizeof(T));
  }
  ByteWriter& PutText(const std::string& text) {  // the bytes alone
    return Append(text.data(), text.size());
  }
  ByteWriter& PutString(const std::string& text) {  // GGUF's: u64 length, bytes
    return Put(uint64_t{text.size()}).PutText(text);
  }
  ByteWriter& PutBytes(const Bytes& bytes) { return Append(bytes.data(), bytes.size()); }
  ByteWriter& PadTo(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  ByteWriter& Append(const void* data, size_t n) {
    const size_t at = bytes_.size();
    bytes_.resize(at + n);
    if (n > 0) std::memcpy(bytes_.data() + at, data, n);
    return *this;
  }
  Bytes bytes_;
};

enum class GgufKind : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

}  // namespace thermocline
