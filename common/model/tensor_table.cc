// The rows of the tensor table, and a file's tensors checked against them.
#include "common/model/tensor_table.h"

#include <fmt/format.h>

#include <unordered_set>

#include "absl/strings/match.h"
#include "common/gguf/format_types.h"
#include "common/util/check.h"
#include "common/util/printable.h"

namespace thermocline {
namespace {

// A named dimension, an expression of the config.
struct Dim {
  const char* name;
  int64_t (*value)(const ModelConfig&);
};
constexpr Dim kOne = {"1", [](const ModelConfig&) -> int64_t { return 1; }};
constexpr Dim kModel = {"d_model", [](const ModelConfig& c) { return c.d_model; }};
constexpr Dim kFf = {"d_ff", [](const ModelConfig& c) { return c.d_ff; }};
constexpr Dim kVocab = {"n_vocab", [](const ModelConfig& c) { return c.n_vocab; }};
constexpr Dim kQuery = {"n_heads * d_head",
                        [](const ModelConfig& c) { return c.n_heads * c.d_head; }};
constexpr Dim kKv = {"n_kv_heads * d_head",
                     [](const ModelConfig& c) { return c.n_kv_heads * c.d_head; }};
constexpr Dim kHalfRot = {"n_rot / 2", [](const ModelConfig& c) { return c.n_rot / 2; }};

enum class Where { kModelWide, kEachLayer };
enum class Need { kRequired, kOptional, kEither };  // kEither: one of a layer's rows of this need
enum class Types { kAny, kF32Only, kNoSupers };     // kAny: any of kTensorTypes

struct Row {
  Role role;
  Where where;
  const char* name;   // in a layer, after "blk.N."
  Dim rows, columns;  // [rows, columns], columns contiguous; a vector has one row
  Need need;
  Types types;
};

using enum Where;
using enum Need;
using enum Types;
constexpr Row kTable[] = {
    {Role::kTokenEmbedding, kModelWide, "token_embd.weight", kVocab, kModel, kRequired, kAny},
    {Role::kOutputNorm, kModelWide, "output_norm.weight", kOne, kModel, kRequired, kF32Only},
    {Role::kOutput, kModelWide, "output.weight", kVocab, kModel, kOptional, kAny},
    {Role::kRopeFreqs, kModelWide, "rope_freqs.weight", kOne, kHalfRot, kOptional, kF32Only},
    {Role::kAttentionNorm, kEachLayer, "attn_norm.weight", kOne, kModel, kRequired, kF32Only},
    {Role::kAttentionQ, kEachLayer, "attn_q.weight", kQuery, kModel, kRequired, kAny},
    {Role::kAttentionK, kEachLayer, "attn_k.weight", kKv, kModel, kRequired, kAny},
    {Role::kAttentionV, kEachLayer, "attn_v.weight", kKv, kModel, kRequired, kAny},
    {Role::kAttentionOutput, kEachLayer, "attn_output.weight", kModel, kQuery, kRequired, kAny},
    {Role::kFfnNorm, kEachLayer, "ffn_norm.weight", kOne, kModel, kRequired, kF32Only},
    {Role::kFfnGate, kEachLayer, "ffn_gate.weight", kFf, kModel, kRequired, kAny},
    {Role::kFfnUp, kEachLayer, "ffn_up.weight", kFf, kModel, kRequired, kAny},
    {Role::kFfnDown, kEachLayer, "ffn_down.weight", kModel, kFf, kEither, kAny},
    {Role::kFfnDownT, kEachLayer, "ffn_down_t.weight", kFf, kModel, kEither, kNoSupers},
};

// Tensors of layers that are no part of the model's own: PowerInfer's predictor (predictor.h), and
// frequencies that early converters kept.
constexpr const char* kUnread[] = {".fc1.weight", ".fc2.weight", ".attn_rot_embd.weight"};

std::string RowName(const Row& row, int64_t layer) {
  return row.where == kEachLayer ? fmt::format("blk.{}.{}", layer, row.name) : row.name;
}

std::string Shape(const GgufTensor& tensor) {
  std::string text;  // slowest dimension first
  for (int i = tensor.n_dims - 1; i >= 0; --i) {
    text += fmt::format("{}{}", tensor.dims[i], i > 0 ? ", " : "");
  }
  return "[" + text + "]";
}

// Collects what is wrong, so that one error tells it all.
class Problems {
 public:
  void Damaged(std::string text) {
    damaged_ = true;
    Add(std::move(text));
  }
  void NotComputed(std::string text) { Add(std::move(text)); }

  absl::Status ToStatus(const GgufFile& file) const {
    if (count_ == 0) return absl::OkStatus();
    std::string text = fmt::format("{}: {}", file.path(), fmt::join(shown_, "; "));
    if (count_ > shown_.size()) text += fmt::format("; and {} more", count_ - shown_.size());
    return damaged_ ? absl::InvalidArgumentError(text) : absl::UnimplementedError(text);
  }

 private:
  void Add(std::string text) {
    constexpr size_t kMaxShown = 8;
    if (++count_ <= kMaxShown) shown_.push_back(std::move(text));
  }
  std::vector<std::string> shown_;
  size_t count_ = 0;
  bool damaged_ = false;
};

bool IsComputed(const TypeInfo* info, Types types) {
  if (info == nullptr) return false;
  // Super-blocks of 256 columns: what PowerInfer does not write, a transposed down is not read in.
  return types != kNoSupers || info->block_size <= 32;
}

std::string ComputedTypes(Types types) {
  std::vector<const char*> names;
  for (const TypeInfo& info : kTensorTypes) {
    if (IsComputed(&info, types)) names.push_back(info.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

void CheckTensor(const GgufTensor& tensor, const Row& row, const ModelConfig& config,
                 Problems* problems) {
  const int64_t rows = row.rows.value(config), columns = row.columns.value(config);
  const std::string name = "tensor " + Quoted(tensor.name);
  if (tensor.dims[0] != columns || tensor.n_rows() != rows || tensor.dims[1] != rows) {
    problems->Damaged(fmt::format("{} is {}, but [{}, {}] is [{}, {}]", name, Shape(tensor),
                                  row.rows.name, row.columns.name, rows, columns));
  }
  if (row.types == kF32Only && tensor.type != TensorType::kF32) {
    problems->NotComputed(
        fmt::format("{} has type {}, it must be F32", name, TensorTypeName(tensor.type)));
  } else if (!IsComputed(tensor.info(), row.types)) {
    problems->NotComputed(fmt::format("{} has type {}, which is not computed here; known: {}", name,
                                      TensorTypeName(tensor.type), ComputedTypes(row.types)));
  }
}

// A layer's tensor or a bias that the table does not know would change what the model says, so it
// must not be passed over.
bool MattersUnknown(const std::string& name) {
  for (const char* suffix : kUnread) {
    if (absl::EndsWith(name, suffix)) return false;
  }
  return absl::StartsWith(name, "blk.") || absl::EndsWith(name, ".bias");
}

void CheckUnknown(const GgufFile& file, const std::unordered_set<std::string>& known,
                  Problems* problems) {
  for (const GgufTensor& tensor : file.tensors()) {
    if (known.contains(tensor.name) || !MattersUnknown(tensor.name)) continue;
    problems->NotComputed(fmt::format("tensor {} is no part of the model as it is computed here",
                                      Quoted(tensor.name)));
  }
}

// A layer's down lies in the file once: as it is, or transposed.
void CheckDown(const GgufFile& file, int64_t layer, Problems* problems) {
  const std::string down = TensorName(Role::kFfnDown, layer);
  const std::string down_t = TensorName(Role::kFfnDownT, layer);
  const bool has_down = file.FindTensor(down) != nullptr;
  if (has_down != (file.FindTensor(down_t) != nullptr)) return;
  problems->Damaged(has_down ? fmt::format("tensors '{}' and '{}' are both there", down, down_t)
                             : fmt::format("tensor '{}' (or '{}') is missing", down, down_t));
}

}  // namespace

std::string TensorName(Role role, int64_t layer) {
  for (const Row& row : kTable) {
    if (row.role == role) return RowName(row, layer);
  }
  THERMOCLINE_CHECK(false);  // every role has a row
}

absl::Status CheckTensors(const GgufFile& file, const ModelConfig& config) {
  if (file.tensors().empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: holds no tensors: a vocabulary only, not a model", file.path()));
  }
  Problems problems;
  std::unordered_set<std::string> known;
  for (const Row& row : kTable) {
    const int64_t n = row.where == kEachLayer ? config.n_layers : 1;
    for (int64_t layer = 0; layer < n; ++layer) {
      const std::string name = RowName(row, layer);
      known.insert(name);
      if (const GgufTensor* tensor = file.FindTensor(name)) {
        CheckTensor(*tensor, row, config, &problems);
      } else if (row.need == kRequired) {
        problems.Damaged(fmt::format("tensor '{}' is missing", name));
      }
    }
  }
  for (int64_t layer = 0; layer < config.n_layers; ++layer) CheckDown(file, layer, &problems);
  CheckUnknown(file, known, &problems);
  return problems.ToStatus(file);
}

const GgufTensor* FindRole(const GgufFile& file, Role role, int64_t layer) {
  return file.FindTensor(TensorName(role, layer));
}

}  // namespace thermocline
