// Queries on a parsed GGUF file. The bytes are read in gguf_parser.cc.
#include "common/gguf/gguf_file.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "common/gguf/gguf_parser.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// By GgufValue's index.
constexpr const char* kKindNames[] = {"a bool",
                                      "an integer",
                                      "an integer",
                                      "a float",
                                      "a string",
                                      "an array of bools",
                                      "an array of integers",
                                      "an array of integers",
                                      "an array of floats",
                                      "an array of strings"};
static_assert(std::size(kKindNames) == std::variant_size_v<GgufValue>);

absl::Status Problem(const std::string& path, const std::string& key, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{}: key {} {}", path, Quoted(key), what));
}

absl::Status WrongKind(const std::string& path, const std::string& key, const GgufValue& value,
                       const char* wanted) {
  return Problem(path, key, fmt::format("holds {}, not {}", kKindNames[value.index()], wanted));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(path));
  ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, Parse(mapped->bytes(), path));
  file->file_ = std::move(mapped);
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(absl::Span<const uint8_t> bytes,
                                                          const std::string& name) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->path_ = name;
  file->bytes_ = bytes;
  RETURN_IF_ERROR(GgufParser(file.get()).Parse());
  return file;
}

const GgufTensor* GgufFile::FindTensor(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

absl::Span<const uint8_t> GgufFile::TensorBytes(const GgufTensor& tensor) const {
  return bytes_.subspan(tensor.file_offset, tensor.n_bytes);
}

void GgufFile::DropPages(uint64_t file_offset, uint64_t n_bytes) const {
  if (file_ != nullptr) file_->DropPages(file_offset, n_bytes);
}

absl::StatusOr<const GgufValue*> GgufFile::Find(const std::string& key) const {
  const auto it = values_.find(key);
  if (it != values_.end()) return &it->second;
  return absl::NotFoundError(fmt::format("{}: key {} is missing", path_, Quoted(key)));
}

template <typename T>
absl::StatusOr<const T*> GgufFile::Get(const std::string& key, const char* wanted) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (const T* held = std::get_if<T>(value)) return held;
  return WrongKind(path_, key, *value, wanted);
}

absl::StatusOr<int64_t> GgufFile::GetInt(const std::string& key, int64_t min, int64_t max) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const auto in_range = [&](auto number) -> absl::StatusOr<int64_t> {
    if (std::cmp_less(number, min) || std::cmp_greater(number, max)) {
      return Problem(path_, key, fmt::format("is {}; {} to {} is possible", number, min, max));
    }
    return static_cast<int64_t>(number);
  };
  if (const int64_t* held = std::get_if<int64_t>(value)) return in_range(*held);
  if (const uint64_t* held = std::get_if<uint64_t>(value)) return in_range(*held);
  return WrongKind(path_, key, *value, "an integer");
}

absl::StatusOr<double> GgufFile::GetFloat(const std::string& key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  double number;
  if (const double* held = std::get_if<double>(value)) {
    number = *held;
  } else if (const int64_t* held = std::get_if<int64_t>(value)) {
    number = static_cast<double>(*held);
  } else if (const uint64_t* held = std::get_if<uint64_t>(value)) {
    number = static_cast<double>(*held);
  } else {
    return WrongKind(path_, key, *value, "a number");
  }
  if (!std::isfinite(number)) return Problem(path_, key, "is not a finite number");
  return number;
}

absl::StatusOr<bool> GgufFile::GetBool(const std::string& key) const {
  ASSIGN_OR_RETURN(const bool* value, Get<bool>(key, "a bool"));
  return *value;
}

absl::StatusOr<std::string> GgufFile::GetString(const std::string& key) const {
  ASSIGN_OR_RETURN(const std::string* value, Get<std::string>(key, "a string"));
  return *value;
}

absl::StatusOr<const std::vector<std::string>*> GgufFile::GetStrings(const std::string& key) const {
  return Get<std::vector<std::string>>(key, "an array of strings");
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloats(const std::string& key) const {
  ASSIGN_OR_RETURN(const std::vector<double>* held,
                   Get<std::vector<double>>(key, "an array of floats"));
  std::vector<float> values(held->begin(), held->end());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return Problem(path_, key, fmt::format("is not a finite f32 number at element {}", i));
    }
  }
  return values;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(const std::string& key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (const auto* held = std::get_if<std::vector<int64_t>>(value)) return *held;
  const auto* held = std::get_if<std::vector<uint64_t>>(value);
  if (held == nullptr) return WrongKind(path_, key, *value, "an array of integers");
  std::vector<int64_t> values;
  values.reserve(held->size());
  for (const uint64_t number : *held) {
    if (!std::in_range<int64_t>(number)) {
      return Problem(path_, key, fmt::format("has {} as an element, which is too large", number));
    }
    values.push_back(static_cast<int64_t>(number));
  }
  return values;
}

}  // namespace thermocline
