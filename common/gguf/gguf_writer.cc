// The bytes of a GGUF file, as the public specification lays them out: magic, version, counts,
// keys, tensor table, padding, the tensors' data each at a multiple of the alignment.
#include "common/gguf/gguf_writer.h"

#include <algorithm>
#include <memory>

#include "common/gguf/format_types.h"
#include "common/util/check.h"
#include "common/util/replace_file.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr uint64_t kAlignment = 32;  // the format's default, so no key is needed

uint64_t Aligned(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
Bytes BytesOf(T value) {
  return ByteWriter().Put(value).bytes();
}

uint64_t BytesOfShape(TensorType type, const std::vector<int64_t>& dims) {
  const FormatType* format = format_type(type);
  THERMOCLINE_CHECK(format != nullptr && !dims.empty() && dims.size() <= 4);
  THERMOCLINE_CHECK(dims.back() % format->block_size == 0);
  uint64_t n_blocks = static_cast<uint64_t>(dims.back()) / format->block_size;
  for (size_t i = 0; i + 1 < dims.size(); ++i) n_blocks *= static_cast<uint64_t>(dims[i]);
  return n_blocks * format->block_bytes;
}

}  // namespace

GgufWriter& GgufWriter::Key(const std::string& key, GgufKind kind, const Bytes& value) {
  for (const auto& [name, unused] : keys_) THERMOCLINE_CHECK(name != key);
  keys_.emplace_back(key, ByteWriter().Put(kind).PutBytes(value).bytes());
  return *this;
}

template <typename T>
GgufWriter& GgufWriter::Array(const std::string& key, GgufKind kind, const std::vector<T>& values) {
  ByteWriter writer;
  writer.Put(kind).Put(uint64_t{values.size()});
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      writer.PutString(value);
    } else {
      writer.Put(value);
    }
  }
  return Key(key, GgufKind::kArray, writer.bytes());
}

GgufWriter& GgufWriter::String(const std::string& key, const std::string& value) {
  return Key(key, GgufKind::kString, ByteWriter().PutString(value).bytes());
}
GgufWriter& GgufWriter::Uint32(const std::string& key, uint32_t value) {
  return Key(key, GgufKind::kUint32, BytesOf(value));
}
GgufWriter& GgufWriter::Int64(const std::string& key, int64_t value) {
  return Key(key, GgufKind::kInt64, BytesOf(value));
}
GgufWriter& GgufWriter::Uint64(const std::string& key, uint64_t value) {
  return Key(key, GgufKind::kUint64, BytesOf(value));
}
GgufWriter& GgufWriter::Float32(const std::string& key, float value) {
  return Key(key, GgufKind::kFloat32, BytesOf(value));
}
GgufWriter& GgufWriter::Bool(const std::string& key, bool value) {
  return Key(key, GgufKind::kBool, BytesOf(uint8_t{value}));
}
GgufWriter& GgufWriter::Floats(const std::string& key, const std::vector<float>& values) {
  return Array(key, GgufKind::kFloat32, values);
}
GgufWriter& GgufWriter::Ints(const std::string& key, const std::vector<int32_t>& values) {
  return Array(key, GgufKind::kInt32, values);
}
GgufWriter& GgufWriter::Uints(const std::string& key, const std::vector<uint32_t>& values) {
  return Array(key, GgufKind::kUint32, values);
}
GgufWriter& GgufWriter::Strings(const std::string& key, const std::vector<std::string>& values) {
  return Array(key, GgufKind::kString, values);
}

GgufWriter& GgufWriter::Tensor(const std::string& name, TensorType type,
                               const std::vector<int64_t>& dims, Bytes bytes) {
  for (const Entry& tensor : tensors_) THERMOCLINE_CHECK(tensor.name != name);
  THERMOCLINE_CHECK(bytes.size() == BytesOfShape(type, dims));
  tensors_.push_back({name, type, dims, std::move(bytes)});
  return *this;
}

Bytes GgufWriter::Header() const {
  ByteWriter out;
  out.PutText("GGUF").Put(uint32_t{3});
  out.Put(uint64_t{tensors_.size()}).Put(uint64_t{keys_.size()});
  for (const auto& [name, value] : keys_) out.PutString(name).PutBytes(value);
  uint64_t offset = 0;
  for (const Entry& tensor : tensors_) {
    out.PutString(tensor.name).Put(static_cast<uint32_t>(tensor.dims.size()));
    std::for_each(tensor.dims.rbegin(), tensor.dims.rend(), [&out](int64_t dim) { out.Put(dim); });
    out.Put(tensor.type).Put(offset);
    offset = Aligned(offset + tensor.bytes.size());
  }
  return out.PadTo(kAlignment).bytes();
}

absl::Status GgufWriter::Write(const std::string& path) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplaceFile> file, ReplaceFile::Create(path));
  RETURN_IF_ERROR(file->Write(Header()));
  for (const Entry& tensor : tensors_) {
    RETURN_IF_ERROR(file->Write(tensor.bytes));
    RETURN_IF_ERROR(file->Write(Bytes(Aligned(tensor.bytes.size()) - tensor.bytes.size())));
  }
  return file->Commit();
}

}  // namespace thermocline
