// PowerInfer's statistics and GPU index, read as facts about neurons. Archives and pickles are
// taken apart in stored_zip.cc and torch_pickle.cc.
#include "common/model/activation_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <system_error>

#include "common/gguf/format_types.h"
#include "common/gguf/half.h"
#include "common/model/stored_zip.h"
#include "common/model/torch_pickle.h"
#include "common/util/mapped_file.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

using Bytes = absl::Span<const uint8_t>;

template <typename T>
double ValueOf(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return static_cast<double>(value);
}
double ValueOfHalf(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return f16_to_f32(bits);
}

struct StorageClass {
  const char* name;
  uint64_t n_bytes;  // of an element
  double (*value)(const uint8_t*);
};
constexpr StorageClass kStorageClasses[] = {
    {"HalfStorage", 2, ValueOfHalf},       {"FloatStorage", 4, ValueOf<float>},
    {"DoubleStorage", 8, ValueOf<double>}, {"IntStorage", 4, ValueOf<int32_t>},
    {"LongStorage", 8, ValueOf<int64_t>},
};

absl::StatusOr<std::vector<double>> ValuesOf(const TorchTensor& tensor, Bytes storage) {
  const StorageClass* type = nullptr;
  for (const StorageClass& row : kStorageClasses) {
    if (tensor.storage_class == row.name) type = &row;
  }
  if (type == nullptr) {
    return absl::UnimplementedError(fmt::format("holds a {}; known: Half, Float, Double, Int, Long",
                                                Quoted(tensor.storage_class)));
  }
  if (tensor.shape.size() != 1 || tensor.strides != std::vector<int64_t>{1}) {
    return absl::InvalidArgumentError("holds a tensor that is not one plain row of values");
  }
  const int64_t n = tensor.shape[0];
  const int64_t n_storage = static_cast<int64_t>(storage.size() / type->n_bytes);
  if (n < 0 || tensor.offset < 0 || tensor.offset > n_storage || n > n_storage - tensor.offset) {
    return absl::InvalidArgumentError(
        fmt::format("holds {} values, but {} from {} on are wanted", n_storage, n, tensor.offset));
  }
  std::vector<double> values(static_cast<size_t>(n));
  const uint8_t* first = storage.data() + static_cast<uint64_t>(tensor.offset) * type->n_bytes;
  for (size_t i = 0; i < values.size(); ++i) values[i] = type->value(first + i * type->n_bytes);
  return values;
}

absl::StatusOr<std::vector<double>> ValuesInArchive(Bytes bytes) {
  ASSIGN_OR_RETURN(const auto files, ReadStoredZip(bytes));
  const std::string pickle_name = "data.pkl";
  for (const auto& [name, contents] : files) {  // all under one folder, of any name
    if (!name.ends_with("/" + pickle_name)) continue;
    const std::string folder = name.substr(0, name.size() - pickle_name.size());
    const auto order = files.find(folder + "byteorder");
    if (order != files.end() &&
        std::string(order->second.begin(), order->second.end()) != "little") {
      return absl::UnimplementedError("was saved on a big-endian machine");
    }
    ASSIGN_OR_RETURN(const TorchTensor tensor, ReadTorchPickle(contents));
    const auto storage = files.find(folder + "data/" + tensor.storage_key);
    if (storage != files.end()) return ValuesOf(tensor, storage->second);
    return absl::InvalidArgumentError("lacks its storage " + Quoted(tensor.storage_key));
  }
  return absl::InvalidArgumentError("holds no data.pkl: not a file of torch.save");
}

// N of "activation_N.pt".
std::optional<int64_t> LayerOf(const std::string& name) {
  const std::string prefix = "activation_", suffix = ".pt";
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  int64_t layer;
  const char* begin = name.data() + prefix.size();
  const char* end = name.data() + name.size() - suffix.size();
  const auto [rest, error] = std::from_chars(begin, end, layer);
  if (begin >= end || error != std::errc() || rest != end || layer < 0) return std::nullopt;
  return layer;
}

absl::StatusOr<std::map<int64_t, std::string>> FilesByLayer(const std::string& folder) {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  std::map<int64_t, std::string> paths;
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::optional<int64_t> layer = LayerOf(entry->path().filename().string());
    if (!layer.has_value()) continue;
    const auto [it, is_new] = paths.emplace(*layer, entry->path().string());
    if (is_new) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} and {} both are of layer {}", it->second, entry->path().string(), *layer));
  }
  if (error) return absl::ErrnoToStatus(error.value(), fmt::format("{}: cannot read", folder));
  return paths;
}

// What a statistic's values are: firings, or shares of the tokens.
struct Scale {
  bool is_share = false;  // some value is no integer
  double most = 0;
};

absl::Status Look(const std::string& path, const std::vector<double>& values, Scale* scale) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] >= 0 && values[i] <= std::numeric_limits<int32_t>::max())) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: says {} of neuron {}, which is no count of firings", path, values[i], i));
    }
    scale->is_share = scale->is_share || values[i] != std::floor(values[i]);
    scale->most = std::max(scale->most, values[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ReadGpuLayer(const GgufFile& file, int64_t layer,
                                                  int64_t d_ff) {
  const std::string name = fmt::format("blk.{}.gpu_idx", layer);
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(fmt::format("{}: tensor '{}' {}", file.path(), name, what));
  };
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) return wrong("is missing: not a GPU index of this model");
  if (tensor->type != kI32 || tensor->n_rows() != 1 || tensor->dims[0] != d_ff) {
    return wrong(fmt::format("is {} rows of {} {}, not one of {} I32: not of this model",
                             tensor->n_rows(), tensor->dims[0], TensorTypeName(tensor->type),
                             d_ff));
  }
  std::vector<int32_t> neurons;
  const uint8_t* data = file.TensorBytes(*tensor).data();
  for (int32_t i = 0; i < d_ff; ++i) {
    int32_t is_hot;
    std::memcpy(&is_hot, data + i * sizeof(int32_t), sizeof(int32_t));
    if (is_hot != 0 && is_hot != 1) return wrong(fmt::format("says {} of neuron {}", is_hot, i));
    if (is_hot == 1) neurons.push_back(i);
  }
  return neurons;
}

}  // namespace

absl::StatusOr<std::vector<double>> ReadTorchVector(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  return ParseTorchVector(file->bytes(), path);
}

absl::StatusOr<std::vector<double>> ParseTorchVector(Bytes bytes, const std::string& name) {
  absl::StatusOr<std::vector<double>> values = ValuesInArchive(bytes);
  if (values.ok()) return values;
  return absl::Status(values.status().code(),
                      fmt::format("{}: {}", name, std::string(values.status().message())));
}

absl::StatusOr<Profile> ImportActivationStatistics(const std::string& folder,
                                                   const ModelConfig& config,
                                                   const std::string& model_hash) {
  ASSIGN_OR_RETURN(const auto paths, FilesByLayer(folder));
  std::vector<std::vector<double>> layers;
  Scale scale;
  for (const auto& [layer, path] : paths) {  // ascending
    if (layer != std::ssize(layers) || layer >= config.n_layers) break;
    ASSIGN_OR_RETURN(std::vector<double> values, ReadTorchVector(path));
    if (std::ssize(values) != config.d_ff) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: is of {} neurons, the model's layers have {}", path, values.size(), config.d_ff));
    }
    RETURN_IF_ERROR(Look(path, values, &scale));
    layers.push_back(std::move(values));
  }
  if (std::ssize(layers) != config.n_layers || std::ssize(paths) != config.n_layers) {
    return absl::InvalidArgumentError(
        fmt::format("{}: holds {} files activation_N.pt; the model has {} layers, so N must be 0 "
                    "to {}",
                    folder, paths.size(), config.n_layers, config.n_layers - 1));
  }
  if (scale.is_share && scale.most > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: its values are neither counts nor shares of 0 to 1; the largest is {}",
                    folder, scale.most));
  }
  constexpr double kMillion = 1e6;
  const double factor = scale.is_share ? kMillion : 1;
  Profile profile = {.model_hash = model_hash,
                     .text_hash = "",
                     .n_tokens = std::max<int64_t>(
                         1, static_cast<int64_t>(scale.is_share ? kMillion : scale.most)),
                     .recall = 0,
                     .layers = {}};
  for (const std::vector<double>& values : layers) {
    LayerProfile& layer = profile.layers.emplace_back();
    for (const double value : values) {
      layer.fired.push_back(static_cast<uint32_t>(std::lround(value * factor)));
    }
  }
  return profile;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadGpuIndex(const GgufFile& file,
                                                               const ModelConfig& config) {
  std::vector<std::vector<int32_t>> layers;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    ASSIGN_OR_RETURN(layers.emplace_back(), ReadGpuLayer(file, i, config.d_ff));
  }
  if (file.FindTensor(fmt::format("blk.{}.gpu_idx", config.n_layers)) == nullptr) return layers;
  return absl::InvalidArgumentError(fmt::format(
      "{}: is a GPU index of more than the model's {} layers", file.path(), config.n_layers));
}

}  // namespace thermocline
