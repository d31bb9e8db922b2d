// profile.gguf: keys for what is one value, or one a layer; the counts as tensors.
//
//   general.architecture                     "thermocline-profile"
//   thermocline.model_hash, .text_hash       strings
//   thermocline.n_tokens                     u64
//   thermocline.recall                       f32
//   thermocline.KIND.threshold, .computed, .recall, .mass
//                                            f32 [n_layers]; KIND: sketch_1, _2, _3, magnitude
//   thermocline.kl.MODE                      f32; MODE: sketch_1, _2, _3, predict, threshold; those
//                                            that were measured
//   blk.N.fired                              tensor I32 [d_ff]
#include "common/model/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "common/gguf/format_types.h"
#include "common/gguf/gguf_file.h"
#include "common/gguf/gguf_writer.h"
#include "common/model/own_file.h"
#include "common/util/check.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"

namespace thermocline {
namespace {

constexpr char kKind[] = "thermocline-profile";
constexpr char kModelHash[] = "thermocline.model_hash";
constexpr char kTextHash[] = "thermocline.text_hash";
constexpr char kTokens[] = "thermocline.n_tokens";
constexpr char kRecall[] = "thermocline.recall";
constexpr char kRemedy[] = "make the profile again with solve";

struct SelectionField {
  const char* name;
  float Selection::*value;
  bool is_share;  // 0..1
};
constexpr SelectionField kFields[] = {
    {"threshold", &Selection::threshold, false},
    {"computed", &Selection::computed, true},
    {"recall", &Selection::recall, true},
    {"mass", &Selection::mass, true},
};

// Calls visit(name, selection of a layer) for each kind of selection, until one is not OK.
template <typename Layer, typename Visit>
absl::Status VisitSelections(Visit&& visit) {
  for (int bits = 0; bits < kMaxSketchBits; ++bits) {
    RETURN_IF_ERROR(visit(
        fmt::format("sketch_{}", bits + 1), [bits](Layer & layer) -> auto& {
          return layer.sketch[bits];
        }));
  }
  return visit(
      "magnitude", [](Layer & layer) -> auto& { return layer.magnitude; });
}

// Calls visit(key, value) for each mode, until one is not OK.
template <typename Kl, typename Visit>
absl::Status VisitKl(Kl& kl, Visit&& visit) {
  for (int bits = 0; bits < kMaxSketchBits; ++bits) {
    RETURN_IF_ERROR(visit(fmt::format("thermocline.kl.sketch_{}", bits + 1), kl.sketch[bits]));
  }
  RETURN_IF_ERROR(visit("thermocline.kl.predict", kl.predict));
  return visit("thermocline.kl.threshold", kl.threshold);
}

std::string FieldKey(const std::string& kind, const SelectionField& field) {
  return fmt::format("thermocline.{}.{}", kind, field.name);
}

absl::Status Wrong(const GgufFile& file, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", file.path(), what));
}

absl::Status CheckShare(const GgufFile& file, const std::string& key, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();
  return Wrong(file,
               fmt::format("key {} holds {}, which is no share of 0 to 1", Quoted(key), value));
}

// One field of one kind of selection, for all layers; the first one says how many there are.
absl::Status ReadField(const GgufFile& file, const std::string& key, const SelectionField& field,
                       auto&& selection_of, std::vector<LayerProfile>* layers) {
  ASSIGN_OR_RETURN(const std::vector<float> values, file.GetFloats(key));
  if (layers->empty()) layers->resize(values.size());
  if (values.empty() || values.size() != layers->size()) {
    return Wrong(file, fmt::format("key {} holds {} values, but there are {} layers", Quoted(key),
                                   values.size(), layers->size()));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (field.is_share) RETURN_IF_ERROR(CheckShare(file, key, values[i]));
    selection_of((*layers)[i]).*field.value = values[i];
  }
  return absl::OkStatus();
}

absl::Status ReadFired(const GgufFile& file, int64_t layer, int64_t n_tokens,
                       std::vector<uint32_t>* fired) {
  const std::string name = fmt::format("blk.{}.fired", layer);
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) return Wrong(file, fmt::format("tensor '{}' is missing", name));
  if (tensor->type != kI32 || tensor->n_rows() != 1) {
    return Wrong(file, fmt::format("tensor '{}' has type {} and {} rows, not I32 and one row", name,
                                   TensorTypeName(tensor->type), tensor->n_rows()));
  }
  std::vector<int32_t> counts(static_cast<size_t>(tensor->dims[0]));
  std::memcpy(counts.data(), file.TensorBytes(*tensor).data(), counts.size() * sizeof(int32_t));
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] >= 0 && counts[i] <= n_tokens) continue;
    return Wrong(file, fmt::format("tensor '{}' counts {} firings of neuron {} in {} tokens", name,
                                   counts[i], i, n_tokens));
  }
  fired->assign(counts.begin(), counts.end());
  return absl::OkStatus();
}

absl::Status ReadLayers(const GgufFile& file, int64_t n_tokens, std::vector<LayerProfile>* layers) {
  RETURN_IF_ERROR(VisitSelections<LayerProfile>([&](const std::string& kind, auto&& selection_of) {
    for (const SelectionField& field : kFields) {
      RETURN_IF_ERROR(ReadField(file, FieldKey(kind, field), field, selection_of, layers));
    }
    return absl::OkStatus();
  }));
  for (size_t i = 0; i < layers->size(); ++i) {
    RETURN_IF_ERROR(ReadFired(file, static_cast<int64_t>(i), n_tokens, &(*layers)[i].fired));
  }
  if (file.tensors().size() == layers->size()) return absl::OkStatus();
  return Wrong(file, fmt::format("holds {} tensors, but its keys are of {} layers",
                                 file.tensors().size(), layers->size()));
}

absl::StatusOr<Profile> ReadKeysAndLayers(const GgufFile& file) {
  RETURN_IF_ERROR(CheckFileKind(file, kKind));
  Profile profile;
  ASSIGN_OR_RETURN(profile.model_hash, file.GetString(kModelHash));
  ASSIGN_OR_RETURN(profile.text_hash, file.GetString(kTextHash));
  ASSIGN_OR_RETURN(profile.n_tokens, file.GetInt(kTokens, 1, std::numeric_limits<int32_t>::max()));
  ASSIGN_OR_RETURN(const double recall, file.GetFloat(kRecall));
  RETURN_IF_ERROR(CheckShare(file, kRecall, recall));
  profile.recall = static_cast<float>(recall);
  RETURN_IF_ERROR(VisitKl(profile.kl, [&](const std::string& key, float& kl) {
    if (!file.Has(key)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const double value, file.GetFloat(key));
    if (!(value >= 0)) {  // finite, as all floats of a file
      return Wrong(file,
                   fmt::format("key {} holds {}, which is no divergence", Quoted(key), value));
    }
    kl = static_cast<float>(value);
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(ReadLayers(file, profile.n_tokens, &profile.layers));
  return profile;
}

}  // namespace

std::vector<int32_t> HottestFirst(const LayerProfile& layer) {
  std::vector<int32_t> order(layer.fired.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return layer.fired[a] > layer.fired[b]; });
  return order;
}

absl::StatusOr<Profile> ReadProfile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenOwnFile(path, kRemedy));
  absl::StatusOr<Profile> profile = ReadKeysAndLayers(*file);
  if (profile.ok()) return profile;
  return WithRemedy(profile.status(), kRemedy);
}

absl::Status WriteProfile(const Profile& profile, const std::string& path) {
  THERMOCLINE_CHECK(profile.n_tokens >= 1 &&
                    profile.n_tokens <= std::numeric_limits<int32_t>::max());
  GgufWriter writer(kKind);
  writer.String(kModelHash, profile.model_hash)
      .String(kTextHash, profile.text_hash)
      .Uint64(kTokens, static_cast<uint64_t>(profile.n_tokens))
      .Float32(kRecall, profile.recall);
  RETURN_IF_ERROR(VisitKl(profile.kl, [&](const std::string& key, float kl) {
    if (kl >= 0) writer.Float32(key, kl);
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(
      VisitSelections<const LayerProfile>([&](const std::string& kind, auto&& selection_of) {
        for (const SelectionField& field : kFields) {
          std::vector<float> values;
          for (const LayerProfile& layer : profile.layers) {
            values.push_back(selection_of(layer).*field.value);
          }
          writer.Floats(FieldKey(kind, field), values);
        }
        return absl::OkStatus();
      }));
  for (size_t i = 0; i < profile.layers.size(); ++i) {
    const std::vector<uint32_t>& fired = profile.layers[i].fired;  // at most n_tokens: fits in i32
    Bytes bytes(fired.size() * sizeof(int32_t));
    std::memcpy(bytes.data(), fired.data(), bytes.size());
    writer.Tensor(fmt::format("blk.{}.fired", i), kI32, {static_cast<int64_t>(fired.size())},
                  std::move(bytes));
  }
  return writer.Write(path);
}

absl::Status CheckProfile(const Profile& profile, const std::string& path,
                          const std::string& model_hash, int64_t n_layers, int64_t d_ff) {
  if (profile.model_hash != model_hash) {
    return absl::FailedPreconditionError(
        fmt::format("{}: is the profile of model {}, not of {}; {}", path,
                    Quoted(profile.model_hash), Quoted(model_hash), kRemedy));
  }
  if (std::ssize(profile.layers) != n_layers) {
    return absl::FailedPreconditionError(fmt::format(
        "{}: has {} layers, the model has {}; {}", path, profile.layers.size(), n_layers, kRemedy));
  }
  for (int64_t i = 0; i < n_layers; ++i) {
    if (std::ssize(profile.layers[i].fired) == d_ff) continue;
    return absl::FailedPreconditionError(
        fmt::format("{}: has {} neurons in layer {}, the model has {}; {}", path,
                    profile.layers[i].fired.size(), i, d_ff, kRemedy));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
