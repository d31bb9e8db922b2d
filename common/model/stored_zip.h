// The files of a zip archive that holds them uncompressed, as torch.save writes it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace thermocline {

// By name; the contents point into `bytes`. Unimplemented for what is compressed, encrypted or
// beyond 4 GiB; InvalidArgument for what is no zip archive or a damaged one; without the file's
// name. Checksums are not looked at.
absl::StatusOr<std::map<std::string, absl::Span<const uint8_t>>> ReadStoredZip(
    absl::Span<const uint8_t> bytes);

}  // namespace thermocline
