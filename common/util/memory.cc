// MemAvailable of /proc/meminfo, what of a node's meminfo is as good, and the limits of the control
// groups above us.
#include "common/util/memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace thermocline {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

int64_t MachineBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (meminfo >> key >> kib && std::getline(meminfo, unit)) {
    if (key == "MemAvailable:") return kib * 1024;
  }
  return kUnknown;
}

// The first number in a file; none for "max" and for a file that is not there.
int64_t NumberIn(const std::filesystem::path& path, int64_t otherwise) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : otherwise;
}

// Of a group's memory.stat: cached files, which can be dropped.
int64_t CachedBytes(const std::filesystem::path& group, const std::string& prefix) {
  std::ifstream stat(group / "memory.stat");
  int64_t sum = 0;
  std::string key;
  for (int64_t value; stat >> key >> value;) {
    if (key == prefix + "active_file" || key == prefix + "inactive_file") sum += value;
  }
  return sum;
}

struct ControlGroupFiles {  // of one version
  std::string line;         // how its line in /proc/self/cgroup goes on after the first number
  std::filesystem::path root;
  std::string limit, used, stat_prefix;
};

int64_t ControlGroupBytes() {
  const ControlGroupFiles versions[] = {
      {":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
       "total_"},
      {"::", "/sys/fs/cgroup", "memory.max", "memory.current", ""}};
  std::ifstream groups("/proc/self/cgroup");
  int64_t least = kUnknown;
  for (std::string line; std::getline(groups, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    for (const ControlGroupFiles& files : versions) {
      if (line.compare(colon, files.line.size(), files.line) != 0) continue;
      std::filesystem::path group =
          files.root /
          std::filesystem::path(line.substr(colon + files.line.size())).relative_path();
      for (;; group = group.parent_path()) {
        const int64_t limit = NumberIn(group / files.limit, kUnknown);
        if (limit < kUnknown / 2) {  // version 1 has such a number for none
          const int64_t used =
              NumberIn(group / files.used, 0) - CachedBytes(group, files.stat_prefix);
          least = std::min(least, std::max<int64_t>(limit - std::max<int64_t>(used, 0), 0));
        }
        if (group == files.root || !group.has_relative_path()) break;
      }
    }
  }
  return least;
}

// Free memory of a NUMA node and what can be dropped of files there; kUnknown where the kernel
// doesn't say.
int64_t NodeBytes(int32_t node) {
  std::ifstream meminfo("/sys/devices/system/node/node" + std::to_string(node) + "/meminfo");
  std::string word, key, unit;
  int64_t id = 0, kib = 0, available_kib = 0;
  bool is_known = false;
  while (meminfo >> word >> id >> key >> kib && std::getline(meminfo, unit)) {  // "Node 0 MemFree:"
    is_known = true;
    if (key == "MemFree:" || key == "Active(file):" || key == "Inactive(file):" ||
        key == "SReclaimable:") {
      available_kib += kib;
    }
  }
  return is_known ? available_kib * 1024 : kUnknown;
}

}  // namespace

int64_t AvailableMemoryBytes() { return std::min(MachineBytes(), ControlGroupBytes()); }

std::vector<int64_t> AvailableBytesOfNodes(const std::vector<NumaNode>& nodes) {
  const int64_t all = AvailableMemoryBytes();
  if (nodes.size() == 1) return {all};  // nothing is bound to it
  std::vector<int64_t> bytes;
  double sum = 0;
  for (const NumaNode& node : nodes) {
    bytes.push_back(std::min(NodeBytes(node.id), all));
    sum += static_cast<double>(bytes.back());
  }
  const double share = std::min(1.0, static_cast<double>(all) / std::max(sum, 1.0));
  for (int64_t& own : bytes) own = static_cast<int64_t>(static_cast<double>(own) * share);
  return bytes;
}

}  // namespace thermocline
