// A file under a temporary name until it is whole.
#include "common/util/replace_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "common/util/check.h"

namespace thermocline {

ReplaceFile::ReplaceFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

absl::StatusOr<std::unique_ptr<ReplaceFile>> ReplaceFile::Create(const std::string& path) {
  std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return absl::ErrnoToStatus(errno, fmt::format("{}: cannot be written", path));
  return std::unique_ptr<ReplaceFile>(new ReplaceFile(path, std::move(temporary), fd));
}

ReplaceFile::~ReplaceFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::Status ReplaceFile::Failed(int error) const {
  return absl::ErrnoToStatus(error, fmt::format("{}: cannot be written", path_));
}

absl::Status ReplaceFile::Write(absl::Span<const uint8_t> bytes) {
  THERMOCLINE_CHECK(fd_ >= 0);
  constexpr size_t kMost = size_t{1} << 30;  // Linux takes at most 2^31 - 4096 in one call
  while (!bytes.empty()) {
    const ssize_t n = write(fd_, bytes.data(), std::min(bytes.size(), kMost));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed(errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status ReplaceFile::Commit() {
  THERMOCLINE_CHECK(fd_ >= 0);
  if (fsync(fd_) != 0) return Failed(errno);  // space may be missed only here
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed(errno);
  close(std::exchange(fd_, -1));
  return absl::OkStatus();
}

}  // namespace thermocline
