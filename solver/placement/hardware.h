// What a machine is for the planner: its ranks with their memory, bandwidth and link. Described by
// a text (--hardware), or measured on this machine. What work costs on it is cost_model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/plan/plan.h"

namespace thermocline {

// Of a GPU that nothing more is known of: PCIe 4.0 x16 as pinned copies go; and one exchange as
// measured on an H100, 2026-11-23 (a resident kernel and a spinning thread of another process).
inline constexpr double kLinkGbps = 26;
inline constexpr double kHandoverUs = 7.1;

struct HardwareRank {
  RankKind kind = RankKind::kCpu;
  std::string name;         // "rtx4090", "gpu", "cpu"
  double memory_bytes = 0;  // all that the device or node has
  double gbps = 0;          // of reading its memory, 1e9 bytes a second
  double link_gbps = 0;     // GPU: to the host, each way
  double handover_us = 0;   // GPU: one exchange with a rank on the host, without the payload
  int32_t node = -1;        // as RankPlan
  int32_t n_threads = 1;
  // CPU, of all its threads in long prompts (measure_prompts.h); 0: not known.
  double gmacs = 0;      // 1e9 multiply-adds a second
  double pack_gbps = 0;  // of weights packed for a GPU
  bool operator==(const HardwareRank&) const = default;
};

struct Hardware {
  std::vector<HardwareRank> ranks;  // in the order of the text
  bool has_gpu() const;
};

// Grammar, spaces ignored, case too:
//   hardware := part { "+" part }
//   part     := [ N "x" ] ( gpu | node )
//   gpu      := name | "gpu(" number "GiB," number "GB/s" [",link=" number "GB/s"]
//               [",handover=" number "us"] ")"
//   node     := "(" number "GiB," number "GB/s" [",threads=" N] [",macs=" number "GMAC/s"]
//               [",pack=" number "GB/s"] ")"
// "rtx4090+2x(64GiB,100GB/s)": one RTX 4090 and two NUMA nodes. InvalidArgument names the part that
// is wrong, what was expected, and the names of the GPUs that are known.
absl::StatusOr<Hardware> ParseHardware(const std::string& text);

// The NUMA nodes that this process may use with their free memory, and the bandwidth that n_threads
// (0: all CPUs) reach together on plain reads, shared out by threads, and what they do of long
// prompts. Takes about a second.
absl::StatusOr<Hardware> MeasureHardware(int64_t n_threads);

}  // namespace thermocline
