// Writes GGUF files of our own: keys, tensors, alignment 32, version 3. Knows the format and
// nothing of what a file is for.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/gguf/byte_writer.h"
#include "common/gguf/tensor_type.h"

namespace thermocline {

// Keys and tensors keep the order in which they are added; each name is added once.
class GgufWriter {
 public:
  explicit GgufWriter(const std::string& architecture) {
    String("general.architecture", architecture);
  }

  GgufWriter& String(const std::string& key, const std::string& value);
  GgufWriter& Uint32(const std::string& key, uint32_t value);
  GgufWriter& Int64(const std::string& key, int64_t value);
  GgufWriter& Uint64(const std::string& key, uint64_t value);
  GgufWriter& Float32(const std::string& key, float value);
  GgufWriter& Bool(const std::string& key, bool value);
  GgufWriter& Floats(const std::string& key, const std::vector<float>& values);
  GgufWriter& Ints(const std::string& key, const std::vector<int32_t>& values);
  GgufWriter& Uints(const std::string& key, const std::vector<uint32_t>& values);
  GgufWriter& Strings(const std::string& key, const std::vector<std::string>& values);

  // Any type that GGUF has (format_types.h); dims slowest first, the last one contiguous; `bytes`
  // as they lie in the file, of exactly that shape.
  GgufWriter& Tensor(const std::string& name, TensorType type, const std::vector<int64_t>& dims,
                     Bytes bytes);

  // Under a temporary name beside `path`, then renamed: on an error nothing is left and the error
  // names the path (replace_file.h).
  absl::Status Write(const std::string& path) const;

 private:
  struct Entry {
    std::string name;
    TensorType type;
    std::vector<int64_t> dims;
    Bytes bytes;
  };
  GgufWriter& Key(const std::string& key, GgufKind kind, const Bytes& value);
  template <typename T>
  GgufWriter& Array(const std::string& key, GgufKind kind, const std::vector<T>& values);
  Bytes Header() const;  // padded to where the tensors' data begins

  std::vector<std::pair<std::string, Bytes>> keys_;  // kind and value as they lie in the file
  std::vector<Entry> tensors_;
};

}  // namespace thermocline
