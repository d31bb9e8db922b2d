// Spans into events of JSON, one at a time: a trace may have a million of them.
#include "coordinator/engine/trace_file.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "common/util/replace_file.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

// Rows of a process. A rank does one thing after another, so that those of a row do not overlap.
enum Row { kSteps, kComputing, kExchanging };
constexpr const char* kRowNames[] = {"steps", "computing", "exchanging"};

Row RowOf(TraceOp op) {
  switch (op) {
    case TraceOp::kStep:
      return kSteps;
    case TraceOp::kLeave:
    case TraceOp::kWait:
    case TraceOp::kAdd:
      return kExchanging;
    default:
      return kComputing;
  }
}

class EventWriter {
 public:
  explicit EventWriter(ReplaceFile* file) : file_(file) {}
  absl::Status Add(const nlohmann::json& event) {
    text_ += (is_first_ ? "\n" : ",\n") + event.dump();
    is_first_ = false;
    return text_.size() < kBufferBytes ? absl::OkStatus() : Flush();
  }
  absl::Status Raw(const char* text) {
    text_ += text;
    return Flush();
  }

 private:
  static constexpr size_t kBufferBytes = 1 << 16;
  absl::Status Flush() {
    const std::string text = std::exchange(text_, {});
    return file_->Write({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  ReplaceFile* file_;
  std::string text_;
  bool is_first_ = true;
};

void ShiftSteps(const std::vector<TraceSpan>& coordinator, std::vector<TraceSpan>* spans) {
  std::map<uint64_t, int64_t> posted_ns;  // of a step
  for (const TraceSpan& span : coordinator) {
    if (span.op == TraceOp::kRun) posted_ns[span.step] = span.begin_ns;
  }
  std::vector<TraceSpan> shifted;
  int64_t shift_ns = 0;
  bool is_known = false;
  for (TraceSpan span : *spans) {
    if (span.op == TraceOp::kStep) {  // the first one of a step
      const auto found = posted_ns.find(span.step);
      is_known = found != posted_ns.end();
      if (is_known) shift_ns = found->second - span.begin_ns;
    }
    if (!is_known) continue;
    span.begin_ns += shift_ns;
    span.end_ns += shift_ns;
    shifted.push_back(span);
  }
  *spans = std::move(shifted);
}

absl::Status AddNames(const std::string& process, size_t pid, int64_t place, EventWriter* writer) {
  RETURN_IF_ERROR(writer->Add(
      {{"ph", "M"}, {"name", "process_name"}, {"pid", pid}, {"args", {{"name", process}}}}));
  RETURN_IF_ERROR(writer->Add({{"ph", "M"},
                               {"name", "process_sort_index"},
                               {"pid", pid},
                               {"args", {{"sort_index", place}}}}));
  for (int row = 0; row <= kExchanging; ++row) {
    RETURN_IF_ERROR(writer->Add({{"ph", "M"},
                                 {"name", "thread_name"},
                                 {"pid", pid},
                                 {"tid", row},
                                 {"args", {{"name", kRowNames[row]}}}}));
  }
  return absl::OkStatus();
}

absl::Status AddSpans(const std::vector<TraceSpan>& spans, size_t pid, int64_t zero_ns,
                      EventWriter* writer) {
  constexpr double kNsPerUs = 1000;
  for (const TraceSpan& span : spans) {
    nlohmann::json args = {{"step", span.step}};
    if (span.layer >= 0) args["layer"] = span.layer;
    RETURN_IF_ERROR(
        writer->Add({{"ph", "X"},
                     {"name", TraceOpName(span.op)},
                     {"pid", pid},
                     {"tid", RowOf(span.op)},
                     {"ts", static_cast<double>(span.begin_ns - zero_ns) / kNsPerUs},
                     {"dur", static_cast<double>(span.end_ns - span.begin_ns) / kNsPerUs},
                     {"args", std::move(args)}}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTracePath(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is a folder; a trace needs the name of a file", path));
  }
  return ReplaceFile::Create(path).status();
}

absl::Status WriteTrace(const std::string& path, const std::vector<TraceSpan>& coordinator,
                        std::vector<RankTrace> ranks) {
  int64_t zero_ns = std::numeric_limits<int64_t>::max();
  const auto begin_with = [&](const std::vector<TraceSpan>& spans) {
    if (!spans.empty()) zero_ns = std::min(zero_ns, spans.front().begin_ns);
  };
  begin_with(coordinator);
  for (RankTrace& rank : ranks) {
    if (rank.is_on_another_host) ShiftSteps(coordinator, &rank.spans);
    begin_with(rank.spans);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplaceFile> file, ReplaceFile::Create(path));
  EventWriter writer(file.get());
  RETURN_IF_ERROR(writer.Raw("{\"traceEvents\":["));
  RETURN_IF_ERROR(AddNames("coordinator", ranks.size(), -1, &writer));
  RETURN_IF_ERROR(AddSpans(coordinator, ranks.size(), zero_ns, &writer));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    RETURN_IF_ERROR(AddNames(fmt::format("rank {}: {}", rank, ranks[rank].name), rank,
                             static_cast<int64_t>(rank), &writer));
    RETURN_IF_ERROR(AddSpans(ranks[rank].spans, rank, zero_ns, &writer));
  }
  RETURN_IF_ERROR(writer.Raw("\n]}\n"));
  return file->Commit();
}

}  // namespace thermocline
