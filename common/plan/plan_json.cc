// A plan as JSON and back; what it must satisfy is plan.cc.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

#include "absl/strings/str_join.h"
#include "common/plan/plan.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kVersion = 1;
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

absl::StatusOr<RankPlan> ParseRank(const Json& json) {
  RankPlan rank;
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
  ASSIGN_OR_RETURN(const Json* node, Member(json, "node"));
  ASSIGN_OR_RETURN(int64_t node_number, Integer(*node, "node", -1, kMaxInt));
  ASSIGN_OR_RETURN(const Json* threads, Member(json, "threads"));
  ASSIGN_OR_RETURN(int64_t n_threads, Integer(*threads, "threads", 1, 4096));
  rank.node = static_cast<int32_t>(node_number);
  rank.n_threads = static_cast<int32_t>(n_threads);
  if (json.contains("kind") && json["kind"] != "cpu") return Wrong("kind", "\"cpu\"");
  if (json.contains("address")) {
    if (!json["address"].is_string()) return Wrong("address", "a text such as \"host:port\"");
    rank.address = json["address"].get<std::string>();
  }
  return rank;
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
  layers.insert(layers.end(), range.size(), layer);
  return absl::OkStatus();
}

}  // namespace

// One line for each rank and each run of equal layers.
std::string PlanToJson(const Plan& plan) {
  std::vector<std::string> ranks, layers;
  for (const RankPlan& rank : plan.ranks) {
    Json entry = {{"kind", "cpu"}, {"node", rank.node}, {"threads", rank.n_threads}};
    if (!rank.address.empty()) entry["address"] = rank.address;
    ranks.push_back(entry.dump());
  }
  for (size_t first = 0; first < plan.layers.size();) {
    const LayerPlan& layer = plan.layers[first];
    size_t end = first + 1;
    while (end < plan.layers.size() && plan.layers[end] == layer) ++end;
    Json neurons = Json::array();
    for (const std::vector<Range>& ranges : layer.neurons) neurons.push_back(ToJson(ranges));
    const Json entry = {{"layers", Json::array({first, end})},
                        {"kv_heads", ToJson(layer.kv_heads)},
                        {"neurons", std::move(neurons)}};
    layers.push_back(entry.dump());
    first = end;
  }
  const auto lines = [](const std::vector<std::string>& entries) {
    return absl::StrJoin(entries, ",\n  ");
  };
  return fmt::format(
      "{{\n \"version\": {},\n \"model\": {},\n \"ranks\": [\n  {}\n ],\n \"layers\": [\n  {}\n "
      "],\n "
      "\"vocab\": {}\n}}\n",
      kVersion, Json(plan.model_hash).dump(), lines(ranks), lines(layers),
      ToJson(plan.vocab).dump());
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
  if (!model->is_string()) return Wrong("model", "the model's content hash");
  plan.model_hash = model->get<std::string>();
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
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  absl::StatusOr<Plan> plan = PlanFromJson(text);
  if (!plan.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}", path, std::string(plan.status().message())));
  }
  return plan;
}

absl::Status WritePlan(const Plan& plan, const std::string& path) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << PlanToJson(plan);
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return absl::UnknownError(fmt::format("{}: can't be written: {}", path, std::strerror(error)));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
