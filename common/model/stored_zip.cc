// A zip archive's central directory, at its end, and what it points at. Layout: APPNOTE.TXT of the
// zip format. Sizes are taken from the directory: in the files' own headers they may be missing.
#include "common/model/stored_zip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

using Bytes = absl::Span<const uint8_t>;

constexpr uint32_t kFileSignature = 0x04034b50, kEntrySignature = 0x02014b50,
                   kEndSignature = 0x06054b50;
constexpr size_t kFileBytes = 30, kEntryBytes = 46, kEndBytes = 22;  // without their texts
constexpr size_t kMaxComment = 65535;
constexpr uint16_t kEncrypted = 1;  // of the flags
constexpr uint32_t kBeyond = ~0u;   // the true value is in a 64-bit field

absl::Status Damaged(const std::string& what) {
  return absl::InvalidArgumentError("the zip archive is damaged: " + what);
}

// A part of the archive, or nothing when it would leave it.
std::optional<Bytes> Part(Bytes bytes, uint64_t offset, uint64_t n_bytes) {
  if (offset > bytes.size() || n_bytes > bytes.size() - offset) return std::nullopt;
  return bytes.subspan(offset, n_bytes);
}

template <typename T>
T At(Bytes bytes, size_t offset) {  // inside
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

absl::StatusOr<Bytes> FindEnd(Bytes bytes) {
  for (size_t back = kEndBytes; back <= std::min(bytes.size(), kEndBytes + kMaxComment); ++back) {
    const Bytes end = bytes.last(back);
    if (At<uint32_t>(end, 0) == kEndSignature) return end;
  }
  return absl::InvalidArgumentError(
      "is no whole zip archive, as torch.save writes it since version 1.6: save it again");
}

absl::StatusOr<Bytes> Contents(Bytes bytes, Bytes entry, const std::string& name) {
  const uint32_t n_bytes = At<uint32_t>(entry, 24), offset = At<uint32_t>(entry, 42);
  const bool is_stored = At<uint16_t>(entry, 10) == 0 && At<uint32_t>(entry, 20) == n_bytes;
  if (!is_stored || (At<uint16_t>(entry, 8) & kEncrypted) != 0 || n_bytes == kBeyond ||
      offset == kBeyond) {
    return absl::UnimplementedError(fmt::format(
        "{} in the zip archive is compressed, encrypted or beyond 4 GiB, which torch.save does not "
        "write",
        Quoted(name)));
  }
  const std::optional<Bytes> header = Part(bytes, offset, kFileBytes);
  if (!header.has_value() || At<uint32_t>(*header, 0) != kFileSignature) {
    return Damaged(Quoted(name) + " is not where its directory says");
  }
  const uint64_t texts = uint64_t{At<uint16_t>(*header, 26)} + At<uint16_t>(*header, 28);
  const std::optional<Bytes> contents = Part(bytes, offset + kFileBytes + texts, n_bytes);
  if (!contents.has_value()) return Damaged(Quoted(name) + " is cut off");
  return *contents;
}

}  // namespace

absl::StatusOr<std::map<std::string, Bytes>> ReadStoredZip(Bytes bytes) {
  ASSIGN_OR_RETURN(const Bytes end, FindEnd(bytes));
  uint64_t offset = At<uint32_t>(end, 16);
  std::map<std::string, Bytes> files;
  for (int n_left = At<uint16_t>(end, 10); n_left > 0; --n_left) {
    const std::optional<Bytes> entry = Part(bytes, offset, kEntryBytes);
    if (!entry.has_value() || At<uint32_t>(*entry, 0) != kEntrySignature) {
      return Damaged("its directory is not where its end says");
    }
    const uint16_t name_bytes = At<uint16_t>(*entry, 28);
    const std::optional<Bytes> text = Part(bytes, offset + kEntryBytes, name_bytes);
    if (!text.has_value()) return Damaged("its directory is cut off");
    const std::string name(text->begin(), text->end());
    ASSIGN_OR_RETURN(const Bytes contents, Contents(bytes, *entry, name));
    if (!files.emplace(name, contents).second) return Damaged(Quoted(name) + " is there twice");
    offset += kEntryBytes + name_bytes + At<uint16_t>(*entry, 30) + At<uint16_t>(*entry, 32);
  }
  return files;
}

}  // namespace thermocline
