// The folder that solve writes: under a temporary name beside it until it is whole. Knows nothing
// of what is in it, but for the file by which a folder of ours is known.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace thermocline {

inline constexpr char kReportFile[] = "report.json";

class OutputFolder {
 public:
  // Makes DIR.tmp-PID, and removes what killed runs have left of this kind. Errors name the path:
  // NotFound without the folder above, AlreadyExists when DIR is there and not made by solve.
  static absl::StatusOr<std::unique_ptr<OutputFolder>> Create(const std::string& path);
  // What was not committed is removed.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  std::string FilePath(const std::string& name) const;  // while it is being made
  const std::string& temporary_path() const { return temporary_; }
  // Under its own name when this returns OK; a folder that was there is removed after that.
  absl::Status Commit();

 private:
  OutputFolder(std::string path, std::string temporary, int lock)
      : path_(std::move(path)), temporary_(std::move(temporary)), lock_(lock) {}

  const std::string path_, temporary_;
  const int lock_;  // the temporary folder, open and locked as long as this process works on it
  bool is_committed_ = false;
};

}  // namespace thermocline
