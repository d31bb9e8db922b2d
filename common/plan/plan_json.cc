// A plan as JSON and back; what it must satisfy is plan.cc.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "absl/strings/str_join.h"
#include "common/plan/plan.h"
#include "common/util/replace_file.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kVersion = 2;
constexpr int64_t kMaxLayers = 4096;

Json ToJson(const Range& range) { return Json::array({range.begin, range.end}); }

Json ToJson(const std::vector<Range>& ranges) {
  Json list = Json::array();
  for (const Range& range : ranges) list.push_back(ToJson(range));
  return list;
}

absl::Status Wrong(const std::string& key, const std::string& expected) {
  return absl::InvalidArgumentError(fmt::format("plan: {} must be {}", key, expected));
}

absl::StatusOr<const Json*> Member(const Json& object, const std::string& key) {
  if (!object.is_object() || !object.contains(key)) {
    return absl::InvalidArgumentError(fmt::format("plan: {} is missing", key));
  }
  return &object[key];
}

absl::StatusOr<int64_t> Integer(const Json& json, const std::string& key, int64_t min,
                                int64_t max) {
  const bool fits = json.is_number_integer() &&
                    !(json.is_number_unsigned() &&
                      json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) &&
                    json.get<int64_t>() >= min && json.get<int64_t>() <= max;
  if (!fits) return Wrong(key, fmt::format("an integer from {} to {}", min, max));
  return json.get<int64_t>();
}

absl::StatusOr<Range> ParseRange(const Json& json, const std::string& key) {
  if (!json.is_array() || json.size() != 2) return Wrong(key, "a pair [begin, end]");
  Range range;
  constexpr int64_t kMax = int64_t{1} << 40;
  ASSIGN_OR_RETURN(range.begin, Integer(json[0], key, 0, kMax));
  ASSIGN_OR_RETURN(range.end, Integer(json[1], key, 0, kMax));
  return range;
}

absl::StatusOr<std::vector<Range>> ParseRanges(const Json& json, const std::string& key) {
  if (!json.is_array()) return Wrong(key, "a list of pairs [begin, end]");
  std::vector<Range> ranges;
  for (const Json& entry : json) {
    ASSIGN_OR_RETURN(Range range, ParseRange(entry, key));
    ranges.push_back(range);
  }
  return ranges;
}

// A number of microseconds.
absl::StatusOr<double> Microseconds(const Json& json, const std::string& key) {
  if (!json.is_number() || !(json.get<double>() >= 0 && json.get<double>() < 1e12)) {
    return Wrong(key, "a number of microseconds, 0 or more");
  }
  return json.get<double>();
}

absl::StatusOr<std::string> Text(const Json& json, const std::string& key,
                                 const std::string& expected) {
  if (!json.is_string()) return Wrong(key, expected);
  return json.get<std::string>();
}

absl::StatusOr<RankPlan> ParseRank(const Json& json) {
  RankPlan rank;
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
  ASSIGN_OR_RETURN(const Json* node, Member(json, "node"));
  ASSIGN_OR_RETURN(int64_t node_number, Integer(*node, "node", -1, kMaxInt));
  ASSIGN_OR_RETURN(const Json* threads, Member(json, "threads"));
  ASSIGN_OR_RETURN(int64_t n_threads, Integer(*threads, "threads", 1, 4096));
  rank.node = static_cast<int32_t>(node_number);
  rank.n_threads = static_cast<int32_t>(n_threads);
  ASSIGN_OR_RETURN(const Json* kind, Member(json, "kind"));
  if (*kind != "cpu" && *kind != "gpu") return Wrong("kind", "\"cpu\" or \"gpu\"");
  rank.kind = *kind == "gpu" ? RankKind::kGpu : RankKind::kCpu;
  if (json.contains("memory")) {
    ASSIGN_OR_RETURN(rank.memory_bytes,
                     Integer(json["memory"], "memory (bytes)", 0, int64_t{1} << 50));
  }
  if (json.contains("device")) {
    ASSIGN_OR_RETURN(rank.device, Text(json["device"], "device", "a text like \"cuda:0\""));
  }
  if (json.contains("address")) {
    ASSIGN_OR_RETURN(rank.address, Text(json["address"], "address", "a text like \"host:port\""));
  }
  return rank;
}

// "mode", and what goes with some modes only.
absl::Status ParseMode(const Json& json, LayerPlan* layer) {
  if (json.contains("mode")) {
    ASSIGN_OR_RETURN(const std::string name, Text(json["mode"], "mode", "a mode of --sparsity"));
    const absl::StatusOr<Sparsity> mode = ParseSparsity(name);
    if (!mode.ok()) return Wrong("mode", std::string(mode.status().message()));
    layer->mode = *mode;
  }
  if (json.contains("sketch_bits")) {
    ASSIGN_OR_RETURN(const int64_t bits,
                     Integer(json["sketch_bits"], "sketch_bits", 1, kMaxSketchBits));
    layer->sketch_bits = static_cast<int32_t>(bits);
  }
  if (json.contains("decider")) {
    ASSIGN_OR_RETURN(const int64_t rank, Integer(json["decider"], "decider", 0, kMaxRanks - 1));
    layer->decider = static_cast<int32_t>(rank);
  }
  if (json.contains("us")) {
    if (!json["us"].is_array()) return Wrong("us", "a list of one number a rank");
    for (const Json& entry : json["us"]) {
      ASSIGN_OR_RETURN(const double us, Microseconds(entry, "us"));
      layer->predicted_us.push_back(us);
    }
  }
  return absl::OkStatus();
}

absl::Status ParseLayers(const Json& json, std::vector<LayerPlan>& layers) {
  ASSIGN_OR_RETURN(const Json* span, Member(json, "layers"));
  ASSIGN_OR_RETURN(Range range, ParseRange(*span, "layers[].layers"));
  if (range.begin != static_cast<int64_t>(layers.size()) || range.size() < 1 ||
      range.end > kMaxLayers) {
    return absl::InvalidArgumentError(fmt::format("plan: layers [{}, {}) do not follow layer {}",
                                                  range.begin, range.end,
                                                  static_cast<int64_t>(layers.size()) - 1));
  }
  LayerPlan layer;
  ASSIGN_OR_RETURN(const Json* heads, Member(json, "kv_heads"));
  ASSIGN_OR_RETURN(layer.kv_heads, ParseRanges(*heads, "kv_heads"));
  ASSIGN_OR_RETURN(const Json* neurons, Member(json, "neurons"));
  if (!neurons->is_array()) return Wrong("neurons", "a list of one list a rank");
  for (const Json& entry : *neurons) {
    ASSIGN_OR_RETURN(std::vector<Range> ranges, ParseRanges(entry, "neurons"));
    layer.neurons.push_back(std::move(ranges));
  }
  if (json.contains("tail_heads")) {
    ASSIGN_OR_RETURN(layer.tail_heads, ParseRanges(json["tail_heads"], "tail_heads"));
  }
  RETURN_IF_ERROR(ParseMode(json, &layer));
  layers.insert(layers.end(), range.size(), layer);
  return absl::OkStatus();
}

std::string RankLine(const RankPlan& rank) {
  Json entry = {
      {"kind", RankKindName(rank.kind)}, {"node", rank.node}, {"threads", rank.n_threads}};
  if (rank.memory_bytes > 0) entry["memory"] = rank.memory_bytes;
  if (!rank.device.empty()) entry["device"] = rank.device;
  if (!rank.address.empty()) entry["address"] = rank.address;
  return entry.dump();
}

// Layers [first, end), which are equal.
std::string LayersLine(const LayerPlan& layer, size_t first, size_t end) {
  Json entry = {{"layers", Json::array({first, end})}, {"mode", SparsityName(layer.mode)}};
  if (layer.sketch_bits > 0) entry["sketch_bits"] = layer.sketch_bits;
  if (layer.decider >= 0) entry["decider"] = layer.decider;
  entry["kv_heads"] = ToJson(layer.kv_heads);
  if (!layer.tail_heads.empty()) entry["tail_heads"] = ToJson(layer.tail_heads);
  entry["neurons"] = Json::array();
  for (const std::vector<Range>& ranges : layer.neurons) entry["neurons"].push_back(ToJson(ranges));
  if (!layer.predicted_us.empty()) entry["us"] = layer.predicted_us;
  return entry.dump();
}

}  // namespace

// One line for each rank and each run of equal layers.
std::string PlanToJson(const Plan& plan) {
  std::vector<std::string> ranks, layers;
  for (const RankPlan& rank : plan.ranks) ranks.push_back(RankLine(rank));
  for (size_t first = 0; first < plan.layers.size();) {
    size_t end = first + 1;
    while (end < plan.layers.size() && plan.layers[end] == plan.layers[first]) ++end;
    layers.push_back(LayersLine(plan.layers[first], first, end));
    first = end;
  }
  std::string text = fmt::format("{{\n \"version\": {},\n \"model\": {},\n", kVersion,
                                 Json(plan.model_hash).dump());
  if (!plan.profile_hash.empty()) {
    text += fmt::format(" \"profile\": {},\n", Json(plan.profile_hash).dump());
  }
  if (plan.gpu_ctx > 0) text += fmt::format(" \"gpu_ctx\": {},\n", plan.gpu_ctx);
  text += fmt::format(" \"ranks\": [\n  {}\n ],\n \"layers\": [\n  {}\n ],\n",
                      absl::StrJoin(ranks, ",\n  "), absl::StrJoin(layers, ",\n  "));
  if (plan.stream_tokens > 0) text += fmt::format(" \"stream_tokens\": {},\n", plan.stream_tokens);
  if (plan.predicted_us > 0) {
    text += fmt::format(" \"step_us\": {},\n", Json(plan.predicted_us).dump());
  }
  return text + fmt::format(" \"vocab\": {}\n}}\n", ToJson(plan.vocab).dump());
}

absl::StatusOr<Plan> PlanFromJson(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("plan: this is not a JSON object");
  ASSIGN_OR_RETURN(const Json* version, Member(json, "version"));
  if (*version != kVersion) {
    return absl::InvalidArgumentError(fmt::format(
        "plan: version {} is not the version {} that is read here", version->dump(), kVersion));
  }
  Plan plan;
  ASSIGN_OR_RETURN(const Json* model, Member(json, "model"));
  ASSIGN_OR_RETURN(plan.model_hash, Text(*model, "model", "the model's content hash"));
  if (json.contains("profile")) {
    ASSIGN_OR_RETURN(plan.profile_hash, Text(json["profile"], "profile", "the profile's hash"));
  }
  if (json.contains("gpu_ctx")) {
    constexpr int64_t kMaxContext = std::numeric_limits<int32_t>::max();
    ASSIGN_OR_RETURN(plan.gpu_ctx, Integer(json["gpu_ctx"], "gpu_ctx (positions)", 0, kMaxContext));
  }
  if (json.contains("stream_tokens")) {
    ASSIGN_OR_RETURN(plan.stream_tokens,
                     Integer(json["stream_tokens"], "stream_tokens", 0, int64_t{1} << 40));
  }
  if (json.contains("step_us")) {
    ASSIGN_OR_RETURN(plan.predicted_us, Microseconds(json["step_us"], "step_us"));
  }
  ASSIGN_OR_RETURN(const Json* ranks, Member(json, "ranks"));
  if (!ranks->is_array()) return Wrong("ranks", "a list");
  for (const Json& entry : *ranks) {
    ASSIGN_OR_RETURN(RankPlan rank, ParseRank(entry));
    plan.ranks.push_back(std::move(rank));
  }
  ASSIGN_OR_RETURN(const Json* layers, Member(json, "layers"));
  if (!layers->is_array()) return Wrong("layers", "a list");
  for (const Json& entry : *layers) RETURN_IF_ERROR(ParseLayers(entry, plan.layers));
  ASSIGN_OR_RETURN(const Json* vocab, Member(json, "vocab"));
  ASSIGN_OR_RETURN(plan.vocab, ParseRanges(*vocab, "vocab"));
  return plan;
}

absl::StatusOr<Plan> ReadPlan(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  std::ostringstream text;
  if (!(text << file.rdbuf())) {  // a folder, say; an iterator would throw
    return absl::InvalidArgumentError(fmt::format("{}: there is nothing to read", path));
  }
  absl::StatusOr<Plan> plan = PlanFromJson(text.str());
  if (!plan.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}", path, std::string(plan.status().message())));
  }
  return plan;
}

absl::Status WritePlan(const Plan& plan, const std::string& path) {
  const std::string text = PlanToJson(plan);
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplaceFile> file, ReplaceFile::Create(path));
  RETURN_IF_ERROR(file->Write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file->Commit();
}

}  // namespace thermocline
