// The GGUF header, read and checked. Layout (public specification): magic, version, tensor count,
// key count; keys: name, kind, value; tensors: name, dims, type, offset; padding; tensor data.
#include "common/gguf/gguf_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "common/gguf/format_types.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

// Far above what real files have, far below what hurts.
constexpr uint64_t kMaxNameBytes = 255;
constexpr uint64_t kMaxArrayCount = 1 << 24;
constexpr uint64_t kMinAlignment = 8;        // the specification's: a multiple of 8
constexpr uint64_t kMaxAlignment = 2 << 20;  // a huge page

// The fewest bytes of an entry; a count of more entries than fit in the file is refused unread.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;             // name, kind, value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name, n_dims, dim, type, offset

// Kinds of values, numbered by the format.
constexpr uint32_t kArray = 9;

// Calls visit<Stored, Value>() for a scalar kind; false when there is no such kind.
template <typename Visit>
bool VisitKind(uint32_t kind, Visit&& visit) {
  switch (kind) {
    case 0:
      visit.template operator()<uint8_t, uint64_t>();
      return true;
    case 1:
      visit.template operator()<int8_t, int64_t>();
      return true;
    case 2:
      visit.template operator()<uint16_t, uint64_t>();
      return true;
    case 3:
      visit.template operator()<int16_t, int64_t>();
      return true;
    case 4:
      visit.template operator()<uint32_t, uint64_t>();
      return true;
    case 5:
      visit.template operator()<int32_t, int64_t>();
      return true;
    case 6:
      visit.template operator()<float, double>();
      return true;
    case 7:
      visit.template operator()<uint8_t, bool>();
      return true;
    case 8:
      visit.template operator()<uint64_t, std::string>();
      return true;  // stored: the length
    case 10:
      visit.template operator()<uint64_t, uint64_t>();
      return true;
    case 11:
      visit.template operator()<int64_t, int64_t>();
      return true;
    case 12:
      visit.template operator()<double, double>();
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status GgufParser::Parse() {
  RETURN_IF_ERROR(ReadHeader());
  RETURN_IF_ERROR(ReadKeys());
  RETURN_IF_ERROR(ReadAlignment());
  RETURN_IF_ERROR(ReadTensorTable());
  file_.header_bytes_ = cursor_.position();
  return PlaceTensors();
}

absl::Status GgufParser::ReadHeader() {
  char magic[4];
  if (!cursor_.Read(&magic)) return Truncated("the magic", sizeof(magic));
  file_.is_powerinfer_ = std::memcmp(magic, "PWRI", 4) == 0;
  if (!file_.is_powerinfer_ && std::memcmp(magic, "GGUF", 4) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: not a GGUF file: it begins with {}, not 'GGUF' or 'PWRI'", file_.path_,
                    Quoted(std::string(magic, 4))));
  }
  uint32_t version;
  if (!cursor_.Read(&version)) return Truncated("the version", sizeof(version));
  if (version != 0 && (version & 0xffff) == 0) {
    return absl::UnimplementedError(fmt::format(
        "{}: a big-endian GGUF file; only little-endian ones are read: convert it", file_.path_));
  }
  if (version != 2 && version != 3) {
    return absl::UnimplementedError(fmt::format(
        "{}: GGUF version {}; versions 2 and 3 are read: convert it", file_.path_, version));
  }
  file_.version_ = version;
  if (!cursor_.Read(&n_tensors_)) return Truncated("the count of tensors", sizeof(n_tensors_));
  if (!cursor_.Read(&n_keys_)) return Truncated("the count of keys", sizeof(n_keys_));
  return absl::OkStatus();
}

absl::Status GgufParser::ReadKeys() {
  section_ = "keys";
  RETURN_IF_ERROR(CheckCount(n_keys_, kMinKeyBytes, "keys"));
  for (uint64_t i = 0; i < n_keys_; ++i) {
    section_ = fmt::format("key {} of {}", i + 1, n_keys_);
    RETURN_IF_ERROR(ReadKey());
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadKey() {
  std::string name;
  RETURN_IF_ERROR(ReadName(&name));
  section_ = "key " + Quoted(name);
  ASSIGN_OR_RETURN(GgufValue value, ReadValue());
  if (!file_.values_.emplace(name, std::move(value)).second) return Invalid("is there twice");
  return absl::OkStatus();
}

absl::StatusOr<GgufValue> GgufParser::ReadValue() {
  uint32_t kind;
  if (!cursor_.Read(&kind)) return Truncated("the value's kind", sizeof(kind));
  const bool is_array = kind == kArray;
  if (is_array && !cursor_.Read(&kind)) return Truncated("the elements' kind", sizeof(kind));
  if (is_array && kind == kArray) return Invalid("holds arrays in an array, which is not read");

  absl::StatusOr<GgufValue> result;
  const bool known = VisitKind(kind, [&]<typename Stored, typename Value>() {
    if (is_array) {
      result = ReadArray<Stored, Value>();
      return;
    }
    Value value{};
    const absl::Status status = ReadOne<Stored>(&value);
    if (status.ok()) {
      result = GgufValue(std::move(value));
    } else {
      result = status;
    }
  });
  if (!known) return Invalid(fmt::format("has a value of kind {}, which GGUF does not have", kind));
  return result;
}

template <typename Stored, typename Value>
absl::Status GgufParser::ReadOne(Value* value) {
  Stored stored;
  if (!cursor_.Read(&stored)) {
    constexpr bool is_text = std::is_same_v<Value, std::string>;
    return Truncated(is_text ? "a string's length" : "the value", sizeof(stored));
  }
  if constexpr (std::is_same_v<Value, std::string>) {
    if (!cursor_.ReadText(stored, value)) return Truncated("a string", stored);
  } else if constexpr (std::is_same_v<Value, bool>) {
    if (stored > 1) return Invalid(fmt::format("has a bool of {}, neither 0 nor 1", stored));
    *value = stored == 1;
  } else {
    *value = static_cast<Value>(stored);
  }
  return absl::OkStatus();
}

template <typename Stored, typename Value>
absl::StatusOr<GgufValue> GgufParser::ReadArray() {
  uint64_t count;
  if (!cursor_.Read(&count)) return Truncated("the array's count", sizeof(count));
  RETURN_IF_ERROR(CheckCount(count, sizeof(Stored), "elements"));
  if (count > kMaxArrayCount) {
    return Invalid(fmt::format("has {} elements, more than {}", count, kMaxArrayCount));
  }
  std::vector<Value> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    Value value{};
    RETURN_IF_ERROR(ReadOne<Stored>(&value));
    values.push_back(std::move(value));
  }
  return GgufValue(std::move(values));
}

absl::Status GgufParser::ReadAlignment() {
  const std::string key = "general.alignment";
  if (!file_.Has(key)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t value, file_.GetInt(key, kMinAlignment, kMaxAlignment));
  alignment_ = static_cast<uint64_t>(value);
  if (!std::has_single_bit(alignment_)) {
    section_ = "key '" + key + "'";
    return Invalid(fmt::format("is {}, which is no power of two", alignment_));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadTensorTable() {
  section_ = "tensor table";
  RETURN_IF_ERROR(CheckCount(n_tensors_, kMinTensorBytes, "tensors"));
  file_.tensors_.reserve(n_tensors_);
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    section_ = fmt::format("tensor {} of {} of the tensor table", i + 1, n_tensors_);
    RETURN_IF_ERROR(ReadTensor());
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadTensor() {
  GgufTensor tensor{};
  RETURN_IF_ERROR(ReadName(&tensor.name));
  section_ = "tensor " + Quoted(tensor.name);
  uint64_t n_values;
  RETURN_IF_ERROR(ReadDims(&tensor, &n_values));
  uint32_t type;
  if (!cursor_.Read(&type)) return Truncated("the type", sizeof(type));
  // PowerInfer left llama.cpp when I8, I16 and I32 still were 16, 17 and 18.
  if (file_.is_powerinfer_ && type >= 16 && type <= 18) type += 8;
  tensor.type = static_cast<TensorType>(type);
  RETURN_IF_ERROR(SetSize(n_values, &tensor));
  // Relative to the tensor data until PlaceTensors.
  if (!cursor_.Read(&tensor.file_offset)) return Truncated("the offset", sizeof(uint64_t));
  if (tensor.file_offset % alignment_ != 0) {
    return Invalid(fmt::format("has offset {}, which is no multiple of the alignment {}",
                               tensor.file_offset, alignment_));
  }
  if (!file_.index_.emplace(tensor.name, file_.tensors_.size()).second) {
    return Invalid("is there twice");
  }
  file_.tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status GgufParser::ReadName(std::string* name) {
  uint64_t n_bytes;
  if (!cursor_.Read(&n_bytes)) return Truncated("the name's length", sizeof(n_bytes));
  if (n_bytes == 0) return Invalid("has no name");
  if (n_bytes > kMaxNameBytes) {
    return Invalid(fmt::format("has a name of {} bytes, more than {}", n_bytes, kMaxNameBytes));
  }
  if (!cursor_.ReadText(n_bytes, name)) return Truncated("the name", n_bytes);
  const auto is_control = [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(name->begin(), name->end(), is_control)) {
    return Invalid(fmt::format("has a name with control characters: {}", Quoted(*name)));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadDims(GgufTensor* tensor, uint64_t* n_values) {
  uint32_t n_dims;
  if (!cursor_.Read(&n_dims)) return Truncated("the count of dimensions", sizeof(n_dims));
  if (n_dims < 1 || n_dims > 4) {
    return Invalid(fmt::format("has {} dimensions; 1 to 4 are possible", n_dims));
  }
  tensor->n_dims = static_cast<int>(n_dims);
  tensor->dims.fill(1);
  int64_t product = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    int64_t& dim = tensor->dims[i];
    if (!cursor_.Read(&dim)) return Truncated("a dimension", sizeof(dim));
    if (dim < 1 || __builtin_mul_overflow(product, dim, &product)) {
      return Invalid(
          fmt::format("has an impossible dimension {} ({})", i, static_cast<uint64_t>(dim)));
    }
  }
  *n_values = static_cast<uint64_t>(product);
  return absl::OkStatus();
}

absl::Status GgufParser::SetSize(uint64_t n_values, GgufTensor* tensor) {
  const FormatType* type = format_type(tensor->type);
  if (type == nullptr) return absl::OkStatus();  // n_bytes stays 0
  if (tensor->dims[0] % type->block_size != 0) {
    return Invalid(fmt::format("has rows of {} values, no multiple of {}'s blocks of {}",
                               tensor->dims[0], type->name, type->block_size));
  }
  const uint64_t n_blocks = n_values / type->block_size;
  if (__builtin_mul_overflow(n_blocks, uint64_t{type->block_bytes}, &tensor->n_bytes)) {
    return Invalid(fmt::format("has {} values, more than any file can hold", n_values));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::PlaceTensors() {
  // No overflow: the header ends inside the file, and alignment is small.
  const uint64_t data = (file_.header_bytes_ + alignment_ - 1) / alignment_ * alignment_;
  for (GgufTensor& tensor : file_.tensors_) {
    const uint64_t offset = tensor.file_offset;
    uint64_t end;
    if (__builtin_add_overflow(data, offset, &tensor.file_offset) ||
        __builtin_add_overflow(tensor.file_offset, tensor.n_bytes, &end)) {
      section_ = "tensor " + Quoted(tensor.name);
      return Invalid(fmt::format("has an impossible offset {}", offset));
    }
  }
  return CheckRanges();
}

absl::Status GgufParser::CheckRanges() {
  const std::vector<GgufTensor>& tensors = file_.tensors_;
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&tensors](size_t a, size_t b) {
    return tensors[a].file_offset < tensors[b].file_offset;
  });
  const uint64_t file_bytes = file_.file_bytes();
  const GgufTensor* before = nullptr;
  uint64_t end_before = 0;
  for (const size_t i : order) {
    const GgufTensor& tensor = tensors[i];
    section_ = "tensor " + Quoted(tensor.name);
    // Of an unknown type at least one byte must be there.
    const uint64_t n_bytes = std::max<uint64_t>(tensor.n_bytes, 1);
    if (before != nullptr && tensor.file_offset < end_before) {
      return Invalid(fmt::format("overlaps tensor {}", Quoted(before->name)));
    }
    if (tensor.file_offset > file_bytes || n_bytes > file_bytes - tensor.file_offset) {
      return absl::DataLossError(fmt::format(
          "{}: truncated in the tensor data: {} needs {} bytes at offset {}, the file ends at {}: "
          "get the file again",
          file_.path_, section_, n_bytes, tensor.file_offset, file_bytes));
    }
    before = &tensor;
    end_before = tensor.file_offset + n_bytes;
  }
  return absl::OkStatus();
}

absl::Status GgufParser::CheckCount(uint64_t count, uint64_t min_bytes, const char* what) const {
  if (count <= cursor_.remaining() / min_bytes) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{}: truncated or damaged: {}: {} {} do not fit in the {} bytes left in the file",
                  file_.path_, section_, count, what, cursor_.remaining()));
}

absl::Status GgufParser::Truncated(const char* what, uint64_t n_bytes) const {
  return absl::DataLossError(fmt::format(
      "{}: truncated or damaged: {}: {} needs {} bytes at offset {}, the file has {} left",
      file_.path_, section_, what, n_bytes, cursor_.position(), cursor_.remaining()));
}

absl::Status GgufParser::Invalid(const std::string& problem) const {
  return absl::InvalidArgumentError(
      fmt::format("{}: damaged: {} {}", file_.path_, section_, problem));
}

}  // namespace thermocline
