// Plain read bandwidth of a team's threads: what decode speeds are compared with.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/worker/rank.h"
#include "cpu_worker/arena.h"
#include "cpu_worker/team.h"
#include "kernels/ops.h"

namespace thermocline {

class CpuReadTest : public ReadTest {
 public:
  // A buffer of this size on the node (-1: anywhere); each thread writes its own part first. ops
  // must outlive the result.
  static absl::StatusOr<std::unique_ptr<CpuReadTest>> Create(int32_t n_threads, int32_t node,
                                                             const kernels::Ops* ops,
                                                             int64_t buffer_bytes);
  double Read() override;  // with the widest loads
  int64_t n_bytes() const override { return n_lines_ * 64; }

 private:
  CpuReadTest(int32_t n_threads, const kernels::Ops* ops, std::unique_ptr<Arena> arena);
  void Touch();
  Team team_;
  const kernels::Ops* ops_;
  std::unique_ptr<Arena> arena_;
  int64_t n_lines_;
  uint64_t sum_ = 0;  // keeps the reads alive
};

}  // namespace thermocline
