// Reads a file to its end; what is in it does not matter.
#include "coordinator/cli/read_text.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace thermocline {
namespace {

absl::Status Failed(const std::string& path) {
  return absl::ErrnoToStatus(errno, fmt::format("can't read '{}'", path));
}

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return Failed(path);
  std::string text;
  char bytes[1 << 16];
  while (const size_t n = std::fread(bytes, 1, sizeof bytes, file.get())) text.append(bytes, n);
  if (std::ferror(file.get())) return Failed(path);
  return text;
}

}  // namespace thermocline
