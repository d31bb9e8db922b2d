// What reading GGUF files of our own has in common: their kind, by general.architecture, and errors
// that say what helps.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {

inline absl::Status CheckFileKind(const GgufFile& file, const std::string& kind) {
  ASSIGN_OR_RETURN(const std::string architecture, file.GetString("general.architecture"));
  if (architecture == kind) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{}: key 'general.architecture' is {}, not '{}'",
                                                file.path(), Quoted(architecture), kind));
}

// The error with its remedy; what is missing in a file makes the file wrong.
inline absl::Status WithRemedy(const absl::Status& status, const std::string& remedy) {
  const bool is_missing = status.code() == absl::StatusCode::kNotFound;
  return absl::Status(is_missing ? absl::StatusCode::kInvalidArgument : status.code(),
                      fmt::format("{}; {}", std::string(status.message()), remedy));
}

// Opens one; an error of what is in it, or missing at its end, says what helps.
inline absl::StatusOr<std::unique_ptr<GgufFile>> OpenOwnFile(const std::string& path,
                                                             const std::string& remedy) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (file.ok() || absl::IsNotFound(file.status())) return file;
  return WithRemedy(file.status(), remedy);
}

}  // namespace thermocline
