// MemAvailable of /proc/meminfo, what counts as available of a node's meminfo, and memory.max of
// the control groups (version 2) above us.
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

int64_t ControlGroupBytes() {
  std::ifstream groups("/proc/self/cgroup");
  int64_t least = kUnknown;
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) continue;
    const std::filesystem::path root = "/sys/fs/cgroup";
    std::filesystem::path group = root / line.substr(4);
    for (;; group = group.parent_path()) {
      const int64_t limit = NumberIn(group / "memory.max", kUnknown);
      if (limit != kUnknown) {
        least =
            std::min(least, std::max<int64_t>(limit - NumberIn(group / "memory.current", 0), 0));
      }
      if (group == root || !group.has_relative_path()) break;
    }
  }
  return least;
}

}  // namespace

int64_t AvailableNodeBytes(int32_t node) {
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
  const int64_t all = AvailableMemoryBytes();
  return is_known ? std::min(available_kib * 1024, all) : all;
}

int64_t AvailableMemoryBytes() { return std::min(MachineBytes(), ControlGroupBytes()); }

}  // namespace thermocline
