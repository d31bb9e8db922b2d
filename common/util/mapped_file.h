// A file mapped read-only; the only place that calls mmap on model files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace thermocline {

class MappedFile {
 public:
  // NotFound, PermissionDenied, InvalidArgument (a directory, empty) with the path named.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  // madvise(MADV_DONTNEED) on the whole pages inside the range.
  void DropPages(uint64_t offset, uint64_t n_bytes) const;

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};

}  // namespace thermocline
