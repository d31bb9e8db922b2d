// Reads a GGUF file's header: keys, values and tensor table, all checked against the file's size.
// Knows the format and nothing of what a model is (common/model does).
//
// Format: GGUF v2 and v3, magic "GGUF", or "PWRI" as PowerInfer writes it; little-endian.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/gguf/tensor_type.h"
#include "common/util/mapped_file.h"

namespace thermocline {

struct GgufTensor {
  std::string name;
  TensorType type;              // of kTensorTypes, or else another number (then info() is null)
  int n_dims;                   // 1..4
  std::array<int64_t, 4> dims;  // ggml order: dims[0] is contiguous; unused ones are 1
  uint64_t file_offset;         // from the file's first byte
  uint64_t n_bytes;             // 0 when GGUF has no such type (format_types.h has all it has)

  const TypeInfo* info() const { return type_info(type); }
  int64_t n_rows() const { return dims[1] * dims[2] * dims[3]; }
  uint64_t row_bytes() const { return n_bytes / n_rows(); }  // of dims[0] values
};

// A metadata value. Integers of all widths become int64 or uint64; arrays hold one kind.
using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>,
                               std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
                               std::vector<std::string>>;

class GgufFile {
 public:
  // Maps and checks the file. Errors name the path and the key, tensor or section, and say what is
  // wrong: NotFound, PermissionDenied, InvalidArgument (not a GGUF, damaged), DataLoss (truncated),
  // Unimplemented (a version or byte order that is not read here).
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // The same over bytes in memory, which must outlive the result.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(absl::Span<const uint8_t> bytes,
                                                         const std::string& name);

  const std::string& path() const { return path_; }
  bool is_powerinfer() const { return is_powerinfer_; }  // magic PWRI
  uint32_t version() const { return version_; }
  uint64_t file_bytes() const { return bytes_.size(); }

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in file order
  const GgufTensor* FindTensor(const std::string& name) const;         // nullptr if absent
  // The tensor's bytes in the mapping, [tensor.n_bytes].
  absl::Span<const uint8_t> TensorBytes(const GgufTensor& tensor) const;
  // Gives the mapped pages of a range back (the page cache keeps them): they leave the RSS.
  void DropPages(uint64_t file_offset, uint64_t n_bytes) const;

  bool Has(const std::string& key) const { return values_.contains(key); }
  // NotFound when the key is absent, InvalidArgument when it holds another kind or is out of range.
  absl::StatusOr<int64_t> GetInt(const std::string& key, int64_t min, int64_t max) const;
  absl::StatusOr<double> GetFloat(const std::string& key) const;  // any number, finite
  absl::StatusOr<bool> GetBool(const std::string& key) const;
  absl::StatusOr<std::string> GetString(const std::string& key) const;
  // Pointers into this object; they live as long as it does.
  absl::StatusOr<const std::vector<std::string>*> GetStrings(const std::string& key) const;
  absl::StatusOr<std::vector<float>> GetFloats(const std::string& key) const;  // all finite
  absl::StatusOr<std::vector<int64_t>> GetInts(const std::string& key) const;

  // SHA-256, 64 hex digits, over the header, the tensor table and the first 4 KiB of every tensor:
  // ties plans and predictors to a model, quick for any size. Computed once, by any thread.
  const std::string& ContentHash() const;

 private:
  GgufFile() = default;
  absl::StatusOr<const GgufValue*> Find(const std::string& key) const;
  template <typename T>
  absl::StatusOr<const T*> Get(const std::string& key, const char* wanted) const;

  std::string path_;
  std::unique_ptr<MappedFile> file_;  // null when parsed from memory
  absl::Span<const uint8_t> bytes_;   // the whole file
  uint64_t header_bytes_ = 0;         // header, keys and tensor table
  bool is_powerinfer_ = false;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  mutable std::once_flag hash_once_;
  mutable std::string content_hash_;

  friend class GgufParser;
};

}  // namespace thermocline
