// GGUF files in memory, byte by byte as the public specification lays them out.
#include "tests/testing/gguf_builder.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "common/util/check.h"

namespace thermocline::testing {
namespace {

template <typename T>
Bytes BytesOf(T value) {
  return ByteWriter().Put(value).bytes();
}

template <typename T>
Bytes ArrayBytes(GgufKind kind, const std::vector<T>& values) {
  ByteWriter writer;
  writer.Put(kind).Put(uint64_t{values.size()});
  for (const T& value : values) writer.Put(value);
  return writer.bytes();
}

template <typename Entry>
void Replace(std::vector<std::pair<std::string, Entry>>* entries, const std::string& name,
             Entry entry) {
  for (auto& [held, old] : *entries) {
    if (held != name) continue;
    old = std::move(entry);
    return;
  }
  entries->emplace_back(name, std::move(entry));
}

template <typename Entry>
void Remove(std::vector<std::pair<std::string, Entry>>* entries, const std::string& name) {
  std::erase_if(*entries, [&name](const auto& entry) { return entry.first == name; });
}

size_t Aligned(size_t n, size_t alignment) { return (n + alignment - 1) / alignment * alignment; }

}  // namespace

GgufBuilder& GgufBuilder::Magic(const std::string& magic) {
  magic_ = magic;
  return *this;
}

GgufBuilder& GgufBuilder::Version(uint32_t version) {
  version_ = version;
  return *this;
}

GgufBuilder& GgufBuilder::Alignment(uint32_t alignment) {
  alignment_ = alignment;
  return Uint("general.alignment", alignment);
}

GgufBuilder& GgufBuilder::Key(const std::string& key, GgufKind kind, const Bytes& value) {
  Replace(&keys_, key, KeyEntry{kind, value});
  return *this;
}

GgufBuilder& GgufBuilder::Uint(const std::string& key, uint32_t value) {
  return Key(key, GgufKind::kUint32, BytesOf(value));
}

GgufBuilder& GgufBuilder::Int(const std::string& key, int32_t value) {
  return Key(key, GgufKind::kInt32, BytesOf(value));
}

GgufBuilder& GgufBuilder::Float(const std::string& key, float value) {
  return Key(key, GgufKind::kFloat32, BytesOf(value));
}

GgufBuilder& GgufBuilder::Bool(const std::string& key, bool value) {
  return Key(key, GgufKind::kBool, BytesOf(uint8_t{value}));
}

GgufBuilder& GgufBuilder::String(const std::string& key, const std::string& value) {
  return Key(key, GgufKind::kString, ByteWriter().PutString(value).bytes());
}

GgufBuilder& GgufBuilder::Ints(const std::string& key, const std::vector<int32_t>& values) {
  return Key(key, GgufKind::kArray, ArrayBytes(GgufKind::kInt32, values));
}

GgufBuilder& GgufBuilder::Floats(const std::string& key, const std::vector<float>& values) {
  return Key(key, GgufKind::kArray, ArrayBytes(GgufKind::kFloat32, values));
}

GgufBuilder& GgufBuilder::Strings(const std::string& key, const std::vector<std::string>& values) {
  ByteWriter writer;
  writer.Put(GgufKind::kString).Put(uint64_t{values.size()});
  for (const std::string& value : values) writer.PutString(value);
  return Key(key, GgufKind::kArray, writer.bytes());
}

GgufBuilder& GgufBuilder::RemoveKey(const std::string& key) {
  Remove(&keys_, key);
  return *this;
}

GgufBuilder& GgufBuilder::Tensor(const std::string& name, TensorType type,
                                 const std::vector<int64_t>& dims, const Bytes& data) {
  Replace(&tensors_, name, TensorEntry{type, dims, data});
  return *this;
}

GgufBuilder& GgufBuilder::TensorF32(const std::string& name, const std::vector<int64_t>& dims,
                                    const std::vector<float>& values) {
  Bytes data(values.size() * sizeof(float));
  if (!values.empty()) std::memcpy(data.data(), values.data(), data.size());
  return Tensor(name, TensorType::kF32, dims, data);
}

GgufBuilder& GgufBuilder::RemoveTensor(const std::string& name) {
  Remove(&tensors_, name);
  return *this;
}

Bytes GgufBuilder::BuildHeader() const {
  ByteWriter out;
  out.PutText(magic_).Put(version_).Put(uint64_t{tensors_.size()}).Put(uint64_t{keys_.size()});
  for (const auto& [name, key] : keys_) out.PutString(name).Put(key.kind).PutBytes(key.value);
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors_) {
    out.PutString(name).Put(static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) out.Put(dim);
    out.Put(tensor.type).Put(offset);
    offset = Aligned(offset + tensor.data.size(), alignment_);
  }
  return out.bytes();
}

Bytes GgufBuilder::Build() const {
  ByteWriter out;
  out.PutBytes(BuildHeader());
  for (const auto& [name, tensor] : tensors_) out.PadTo(alignment_).PutBytes(tensor.data);
  return out.bytes();
}

void GgufBuilder::WriteTo(const std::string& path) const {
  const Bytes bytes = Build();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  THERMOCLINE_CHECK(file.good());
}

}  // namespace thermocline::testing
