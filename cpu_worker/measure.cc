// Times ops.read_sum over an arena.
#include "cpu_worker/measure.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "common/util/status_macros.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<CpuReadTest>> CpuReadTest::Create(int32_t n_threads, int32_t node,
                                                                 const kernels::Ops* ops,
                                                                 int64_t buffer_bytes) {
  ASSIGN_OR_RETURN(std::unique_ptr<Arena> arena, Arena::Create(buffer_bytes, "the bandwidth test"));
  std::unique_ptr<CpuReadTest> test(new CpuReadTest(n_threads, ops, std::move(arena)));
  RETURN_IF_ERROR(test->team_.BindToNode(node));
  test->Touch();
  return test;
}

CpuReadTest::CpuReadTest(int32_t n_threads, const kernels::Ops* ops, std::unique_ptr<Arena> arena)
    : team_(n_threads, /*spin_us=*/0),
      ops_(ops),
      arena_(std::move(arena)),
      n_lines_(arena_->size() / 64) {}

void CpuReadTest::Touch() {
  uint8_t* data = arena_->Take(n_bytes());
  team_.Run([&](int32_t thread) {
    const Team::Part lines = team_.PartOf(n_lines_, thread);
    std::memset(data + lines.begin * 64, 1, (lines.end - lines.begin) * 64);
  });
}

double CpuReadTest::Read() {
  using Clock = std::chrono::steady_clock;
  std::atomic<uint64_t> sum = 0;
  const Clock::time_point start = Clock::now();
  team_.Run([&](int32_t thread) {
    const Team::Part lines = team_.PartOf(n_lines_, thread);
    sum += ops_->read_sum(arena_->data() + lines.begin * 64, (lines.end - lines.begin) * 64);
  });
  sum_ += sum;
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace thermocline
