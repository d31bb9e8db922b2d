// Fills a GgufFile from its bytes and checks all of it; the only code that reads the header's
// bytes. Queries are in gguf_file.h.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/byte_cursor.h"
#include "common/gguf/gguf_file.h"

namespace thermocline {

class GgufParser {
 public:
  explicit GgufParser(GgufFile* file) : file_(*file), cursor_(file->bytes_) {}
  // Errors as GgufFile::Open gives them.
  absl::Status Parse();

 private:
  // These advance the cursor; `section_` says where, for errors.
  absl::Status ReadHeader();
  absl::Status ReadKeys();
  absl::Status ReadKey();
  absl::StatusOr<GgufValue> ReadValue();
  template <typename Stored, typename Value>
  absl::Status ReadOne(Value* value);
  template <typename Stored, typename Value>
  absl::StatusOr<GgufValue> ReadArray();
  absl::Status ReadAlignment();
  absl::Status ReadTensorTable();
  absl::Status ReadTensor();
  absl::Status ReadName(std::string* name);
  absl::Status ReadDims(GgufTensor* tensor, uint64_t* n_values);
  absl::Status SetSize(uint64_t n_values, GgufTensor* tensor);
  // Turns offsets into positions in the file; refuses those that leave it or overlap.
  absl::Status PlaceTensors();
  absl::Status CheckRanges();

  absl::Status CheckCount(uint64_t count, uint64_t min_bytes, const char* what) const;
  absl::Status Truncated(const char* what, uint64_t n_bytes) const;
  absl::Status Invalid(const std::string& problem) const;

  GgufFile& file_;
  ByteCursor cursor_;
  std::string section_ = "header";
  uint64_t n_tensors_ = 0;
  uint64_t n_keys_ = 0;
  uint64_t alignment_ = 32;  // the format's default
};

}  // namespace thermocline
