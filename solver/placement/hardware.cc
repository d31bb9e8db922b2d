// The table of known GPUs and the parser of --hardware. Measuring is measure_hardware.cc.
#include "solver/placement/hardware.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/util/printable.h"
#include "common/util/status_macros.h"
#include "fmt/format.h"

namespace thermocline {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int64_t kMaxTimes = 64;  // of "Nx"

// Memory bandwidth: the makers' data sheets; link: the generation of PCIe that the card has, at
// what pinned copies reach of it (about 85 %); h100: measured, 2026-11-23.
struct KnownGpu {
  const char* name;
  double gib, gbps, link_gbps;
};
constexpr KnownGpu kKnownGpus[] = {
    {"rtx2080ti", 11, 616, 13}, {"rtx3090", 24, 936, 26},   {"rtx4090", 24, 1008, 26},
    {"a100-40g", 40, 1555, 26}, {"a100-80g", 80, 2039, 26}, {"h100", 80, 3094, 55},
};

std::string KnownNames() {
  return absl::StrJoin(kKnownGpus, ", ",
                       [](std::string* out, const KnownGpu& gpu) { out->append(gpu.name); });
}

absl::Status Wrong(const std::string& part, const std::string& why) {
  return absl::InvalidArgumentError(fmt::format(
      "hardware: {} {}; write parts joined by '+', each with an optional count, such as "
      "\"rtx4090+2x(64GiB,100GB/s)\" or \"gpu(24GiB,1008GB/s,link=25GB/s)+(64GiB,80GB/s)\"; known "
      "GPUs: {}",
      Quoted(part), why, KnownNames()));
}

// "24gib" with unit "gib" -> 24; above 0.
std::optional<double> Quantity(const std::string& text, const std::string& unit) {
  if (text.size() <= unit.size() || !text.ends_with(unit)) return std::nullopt;
  double value = 0;
  const char* end = text.data() + text.size() - unit.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const bool is_fine = error == std::errc() && stop == end && value > 0 && value < 1e9;
  return is_fine ? std::optional<double>(value) : std::nullopt;
}

// One of "link=25gb/s", "handover=7us", "threads=8", "macs=500gmac/s", "pack=10gb/s".
absl::Status ParseOption(const std::string& part, const std::string& option, HardwareRank* rank) {
  const bool is_gpu = rank->kind == RankKind::kGpu;
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  std::optional<double> number;
  if (is_gpu && key == "link") {
    number = Quantity(value, "gb/s");
    rank->link_gbps = number.value_or(0);
  } else if (is_gpu && key == "handover") {
    number = Quantity(value, "us");
    rank->handover_us = number.value_or(0);
  } else if (!is_gpu && key == "threads") {
    number = Quantity(value, "");
    if (number.has_value() && (*number > 4096 || *number != std::floor(*number))) number.reset();
    rank->n_threads = static_cast<int32_t>(number.value_or(0));
  } else if (!is_gpu && key == "macs") {
    number = Quantity(value, "gmac/s");
    rank->gmacs = number.value_or(0);
  } else if (!is_gpu && key == "pack") {
    number = Quantity(value, "gb/s");
    rank->pack_gbps = number.value_or(0);
  }
  if (number.has_value()) return absl::OkStatus();
  return Wrong(part,
               fmt::format("has {} where {} is expected", Quoted(option),
                           is_gpu ? "link=<number>GB/s or handover=<number>us"
                                  : "threads=<number>, macs=<number>GMAC/s or pack=<number>GB/s"));
}

// "(64gib,100gb/s)", "gpu(24gib,1008gb/s,...)", "rtx4090"; part: as the user wrote it.
absl::StatusOr<HardwareRank> ParseRank(const std::string& part, const std::string& word) {
  for (const KnownGpu& gpu : kKnownGpus) {
    if (word != gpu.name) continue;
    return HardwareRank{RankKind::kGpu, gpu.name,      gpu.gib * kGib,
                        gpu.gbps,       gpu.link_gbps, kHandoverUs};
  }
  const size_t open = word.find('(');
  const std::string name = word.substr(0, open);
  if (open == std::string::npos || (!name.empty() && name != "gpu")) {
    return Wrong(part, "is not a GPU known by name, nor gpu(...) nor a CPU node (...)");
  }
  if (word.back() != ')') return Wrong(part, "lacks its ')' at the end");
  HardwareRank rank;
  rank.kind = name == "gpu" ? RankKind::kGpu : RankKind::kCpu;
  rank.name = name == "gpu" ? "gpu" : "cpu";
  if (rank.kind == RankKind::kGpu) {
    rank.link_gbps = kLinkGbps;
    rank.handover_us = kHandoverUs;
  }
  const std::vector<std::string> fields =
      absl::StrSplit(word.substr(open + 1, word.size() - open - 2), ',');
  const std::optional<double> gib = Quantity(fields[0], "gib");
  if (!gib.has_value()) {
    return Wrong(part, fmt::format("has {} where <number>GiB is expected", Quoted(fields[0])));
  }
  const std::string second = fields.size() > 1 ? fields[1] : "";
  const std::optional<double> gbps = Quantity(second, "gb/s");
  if (!gbps.has_value()) {
    return Wrong(part, fmt::format("has {} where <number>GB/s is expected", Quoted(second)));
  }
  rank.memory_bytes = *gib * kGib;
  rank.gbps = *gbps;
  for (size_t i = 2; i < fields.size(); ++i) {
    RETURN_IF_ERROR(ParseOption(part, fields[i], &rank));
  }
  return rank;
}

}  // namespace

bool Hardware::has_gpu() const {
  return std::any_of(ranks.begin(), ranks.end(),
                     [](const HardwareRank& rank) { return rank.kind == RankKind::kGpu; });
}

absl::StatusOr<Hardware> ParseHardware(const std::string& text) {
  Hardware hardware;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, '+'))) {
    std::string word;
    for (const char c : part) {
      if (!std::isspace(static_cast<unsigned char>(c))) {
        word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
      }
    }
    if (word.empty()) return Wrong(part, "is an empty part");
    int64_t times = 1;
    const size_t n_digits = word.find_first_not_of("0123456789");
    if (n_digits != std::string::npos && n_digits > 0 && word[n_digits] == 'x') {
      const auto [stop, error] = std::from_chars(word.data(), word.data() + n_digits, times);
      if (error != std::errc() || times < 1 || times > kMaxTimes) {
        return Wrong(part, fmt::format("must be there 1 to {} times", kMaxTimes));
      }
      word.erase(0, n_digits + 1);
    }
    ASSIGN_OR_RETURN(const HardwareRank rank, ParseRank(part, word));
    hardware.ranks.insert(hardware.ranks.end(), times, rank);
  }
  if (static_cast<int32_t>(hardware.ranks.size()) > kMaxRanks) {
    return Wrong(text, fmt::format("has more than {} ranks", kMaxRanks));
  }
  return hardware;
}

}  // namespace thermocline
