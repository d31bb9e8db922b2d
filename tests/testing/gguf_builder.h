// Builds GGUF files in memory for tests: keys, tensors, data, in the order they were added. It
// checks nothing: what a reader must refuse can be built too.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/gguf/byte_writer.h"
#include "common/gguf/tensor_type.h"

namespace thermocline::testing {

using thermocline::Bytes;
using thermocline::ByteWriter;
using thermocline::GgufKind;

class GgufBuilder {
 public:
  GgufBuilder& Magic(const std::string& magic);  // "GGUF" unless told otherwise
  GgufBuilder& Version(uint32_t version);        // 3 unless told otherwise
  GgufBuilder& Alignment(uint32_t alignment);    // also adds the key; 32 and no key otherwise

  // A key that is there already keeps its place and gets the new value.
  GgufBuilder& Uint(const std::string& key, uint32_t value);
  GgufBuilder& Int(const std::string& key, int32_t value);
  GgufBuilder& Float(const std::string& key, float value);
  GgufBuilder& Bool(const std::string& key, bool value);
  GgufBuilder& String(const std::string& key, const std::string& value);
  GgufBuilder& Ints(const std::string& key, const std::vector<int32_t>& values);
  GgufBuilder& Floats(const std::string& key, const std::vector<float>& values);
  GgufBuilder& Strings(const std::string& key, const std::vector<std::string>& values);
  // Any kind, the value's bytes as they stand in the file.
  GgufBuilder& Key(const std::string& key, GgufKind kind, const Bytes& value);
  GgufBuilder& RemoveKey(const std::string& key);

  // dims in ggml's order, the contiguous one first. A tensor that is there already is replaced.
  GgufBuilder& Tensor(const std::string& name, TensorType type, const std::vector<int64_t>& dims,
                      const Bytes& data);
  GgufBuilder& TensorF32(const std::string& name, const std::vector<int64_t>& dims,
                         const std::vector<float>& values);
  GgufBuilder& RemoveTensor(const std::string& name);

  Bytes Build() const;
  // Build() without the tensors' data and the padding before it.
  Bytes BuildHeader() const;
  // Writes Build() to a file; aborts when it can't.
  void WriteTo(const std::string& path) const;

 private:
  struct TensorEntry {
    TensorType type;
    std::vector<int64_t> dims;
    Bytes data;
  };
  struct KeyEntry {
    GgufKind kind;
    Bytes value;
  };
  std::string magic_ = "GGUF";
  uint32_t version_ = 3;
  uint32_t alignment_ = 32;
  std::vector<std::pair<std::string, KeyEntry>> keys_;
  std::vector<std::pair<std::string, TensorEntry>> tensors_;
};

// n random values (a multiple of the type's block size) as blocks of a computed type, of magnitude
// about `amplitude`; the same for the same seed.
Bytes RandomBlocks(TensorType type, int64_t n, float amplitude, uint32_t seed);

}  // namespace thermocline::testing
