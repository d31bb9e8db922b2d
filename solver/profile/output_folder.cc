// Folders made, locked, exchanged, removed.
#include "solver/profile/output_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr char kTemporary[] = ".tmp-";

absl::Status Failed(int error, const std::string& path, const char* what) {
  return absl::ErrnoToStatus(error, fmt::format("{}: {}", path, what));
}

// A folder's descriptor with the lock on it, or -1 when another process has that.
int Lock(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

// Folders of runs that were killed: nobody holds their locks.
void RemoveLeftovers(const fs::path& target) {
  std::error_code error;
  const std::string prefix = target.filename().string() + kTemporary;
  for (const fs::directory_entry& entry : fs::directory_iterator(target.parent_path(), error)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    const int fd = Lock(entry.path());
    if (fd < 0) continue;
    fs::remove_all(entry.path(), error);
    close(fd);
  }
}

bool IsOurs(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder, error) &&
         (fs::exists(folder / kReportFile, error) || fs::is_empty(folder, error));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFolder>> OutputFolder::Create(const std::string& path) {
  std::error_code error;
  fs::path target = fs::absolute(path, error).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "DIR/"
  if (!fs::is_directory(target.parent_path(), error)) {
    return absl::NotFoundError(
        fmt::format("{}: no such folder to make it in: {}", path, target.parent_path().string()));
  }
  if (fs::exists(target, error) && !IsOurs(target)) {
    return absl::AlreadyExistsError(fmt::format(
        "{}: exists and was not made by solve; give another --output, or remove it", path));
  }
  RemoveLeftovers(target);
  std::string temporary = fmt::format("{}{}{}", target.string(), kTemporary, getpid());
  if (mkdir(temporary.c_str(), 0777) != 0) {
    return Failed(errno, path, "cannot be made");
  }
  const int lock = Lock(temporary);
  return std::unique_ptr<OutputFolder>(
      new OutputFolder(target.string(), std::move(temporary), lock));
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  if (!is_committed_) fs::remove_all(temporary_, error);
  if (lock_ >= 0) close(lock_);
}

std::string OutputFolder::FilePath(const std::string& name) const {
  return fmt::format("{}/{}", temporary_, name);
}

absl::Status OutputFolder::Commit() {
  fsync(lock_);
  std::error_code error;
  if (!fs::exists(path_, error)) {
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return Failed(errno, path_, "cannot be renamed to");
    }
  } else if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) ==
             0) {
    fs::remove_all(temporary_, error);  // the old one
  } else {                              // a file system that can't exchange names
    const std::string old = temporary_ + "-old";
    if (std::rename(path_.c_str(), old.c_str()) != 0 ||
        std::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return Failed(errno, path_, "cannot be replaced");
    }
    fs::remove_all(old, error);
  }
  is_committed_ = true;
  return absl::OkStatus();
}

}  // namespace thermocline
