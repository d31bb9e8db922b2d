// Writes a file whole or not at all: under a temporary name beside it, then renamed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace thermocline {

// What is not committed leaves nothing behind, and a file that was there stays as it was. Errors
// name the path that was asked for: NotFound (no such folder), PermissionDenied, ResourceExhausted
// (no space), ...
class ReplaceFile {
 public:
  static absl::StatusOr<std::unique_ptr<ReplaceFile>> Create(const std::string& path);
  ~ReplaceFile();
  ReplaceFile(const ReplaceFile&) = delete;
  ReplaceFile& operator=(const ReplaceFile&) = delete;

  absl::Status Write(absl::Span<const uint8_t> bytes);
  // On disk and under its own name when this returns OK. Nothing is written after it.
  absl::Status Commit();

 private:
  ReplaceFile(std::string path, std::string temporary, int fd);
  absl::Status Failed(int error) const;

  const std::string path_;
  const std::string temporary_;
  int fd_;  // -1 once committed
};

}  // namespace thermocline
