// Times ops.read_sum over an arena.
#include "cpu_worker/measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/util/status_macros.h"
#include "cpu_worker/arena.h"

namespace thermocline {

absl::StatusOr<std::vector<double>> MeasureReadGbps(Team& team, const kernels::Ops& ops,
                                                    int64_t buffer_bytes, int32_t repeats) {
  using Clock = std::chrono::steady_clock;
  ASSIGN_OR_RETURN(std::unique_ptr<Arena> arena, Arena::Create(buffer_bytes, "the bandwidth test"));
  uint8_t* data = arena->Take(buffer_bytes);
  std::vector<double> samples;
  std::vector<uint64_t> sums(team.size() * 8);  // one cache line a thread; keeps the reads alive
  Clock::time_point start;
  team.Run([&](int32_t thread) {
    const Team::Part lines = team.PartOf(buffer_bytes / 64, thread);
    std::memset(data + lines.begin * 64, 1, (lines.end - lines.begin) * 64);
    for (int32_t repeat = 0; repeat < repeats; ++repeat) {
      team.Sync(thread, [&] { start = Clock::now(); });
      sums[thread * 8] += ops.read_sum(data + lines.begin * 64, (lines.end - lines.begin) * 64);
      team.Sync(thread, [&] {
        const std::chrono::duration<double> elapsed = Clock::now() - start;
        samples.push_back(static_cast<double>(buffer_bytes / 64 * 64) / elapsed.count() / 1e9);
      });
    }
  });
  return samples;
}

}  // namespace thermocline
