// A text file as a whole.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace thermocline {

// NotFound, PermissionDenied or another error that names the path and the reason.
absl::StatusOr<std::string> ReadText(const std::string& path);

}  // namespace thermocline
